local suspended = obj.spec.suspend == true
return {
  ["renew"] = {["disabled"] = suspended},
  ["suspend"] = {["disabled"] = suspended},
  ["resume"] = {["disabled"] = not suspended},
}
