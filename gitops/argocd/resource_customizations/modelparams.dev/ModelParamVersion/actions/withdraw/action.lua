obj.spec.lifecycle = "Withdrawn"
return obj
