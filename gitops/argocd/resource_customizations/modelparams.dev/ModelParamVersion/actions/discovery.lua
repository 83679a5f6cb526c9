local actions = {}
actions["withdraw"] = {disabled = obj.spec.lifecycle == "Withdrawn", iconClass = "fa fa-fw fa-ban"}
return actions
