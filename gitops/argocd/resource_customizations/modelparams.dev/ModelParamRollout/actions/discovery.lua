-- What lets a version go on by somebody's word (approve, expedite) is no action: Argo CD acts as its own service
-- account, and the word would be that account's.
local is_paused = obj.spec.paused == true
local has_failed = obj.status ~= nil and obj.status.failedVersions ~= nil and obj.status.failedVersions[1] ~= nil

local actions = {}
actions["pause"] = {disabled = is_paused, iconClass = "fa fa-fw fa-pause"}
actions["resume"] = {disabled = not is_paused, iconClass = "fa fa-fw fa-play"}
actions["retry"] = {disabled = not has_failed, iconClass = "fa fa-fw fa-redo"}
return actions
