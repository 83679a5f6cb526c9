-- Conditions as kstatus reads them (github.com/kubernetes-sigs/cli-utils, pkg/kstatus): Reconciling or Stalled is there
-- while it is true, never both. The reason of Ready says what is waited for, here: a person.
-- One script for ModelParamRollout and ModelParamVersion. No library is used: none is open to a customization.
local a_person = {AwaitingApproval = true, Paused = true, Suspended = true, Withdrawn = true}

local hs = {}
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  hs.status = "Progressing"
  hs.message = "The operator has not seen this generation yet"
  return hs
end

local found = {}
if obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    found[condition.type] = condition
  end
end

local function is_true(kind)
  return found[kind] ~= nil and found[kind].status == "True"
end

local ready = found["Ready"]
if ready == nil then
  hs.status = "Progressing"
  hs.message = "The operator has said nothing yet"
  return hs
end

hs.message = ready.reason
if ready.message ~= nil and ready.message ~= "" then
  hs.message = ready.reason .. ": " .. ready.message
end
if is_true("Stalled") then
  hs.status = "Degraded"
elseif a_person[ready.reason] then
  hs.status = "Suspended"
elseif is_true("Ready") and not is_true("Reconciling") then
  hs.status = "Healthy"
else
  hs.status = "Progressing"
end
return hs
