-- The operator's order to one pod, and the pod's answer.
local hs = {status = "Progressing"}
local told = obj.status
if told == nil or told.observedGeneration ~= obj.metadata.generation or told.podUID ~= obj.spec.podUID then
  hs.message = "The pod has not answered this order yet"
  return hs
end

local state = told.state or "Waiting"
hs.message = state
if told.progress ~= nil and told.progress ~= "" then
  hs.message = hs.message .. " " .. told.progress
end
if told.live ~= nil then
  hs.message = hs.message .. ", serves " .. told.live.versionName
end
local failure = told.lastFailure
if failure ~= nil and state ~= "Live" then
  hs.message = hs.message .. "; " .. failure.versionName .. ": " .. failure.reason .. ": " .. failure.message
end

if state == "Failed" then
  hs.status = "Degraded"
elseif state == "Live" or state == "Staged" then
  hs.status = "Healthy"
end
return hs
