-- Ready says whether certificates can be had by it; before the operator has looked at this generation nothing is known.
local function condition(type)
  for _, c in ipairs(obj.status.conditions or {}) do
    if c.type == type then
      return c
    end
  end
end

if obj.metadata.deletionTimestamp ~= nil then
  return {status = "Progressing", message = "it is being deleted"}
end
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "the operator has not looked at this generation yet"}
end
local ready = condition("Ready")
if ready == nil then
  return {status = "Progressing", message = "the operator has not looked at this generation yet"}
end
if ready.status == "True" then
  return {status = "Healthy", message = ready.message}
end
if ready.status == "False" then
  return {status = "Degraded", message = ready.reason .. ": " .. ready.message}
end
return {status = "Progressing", message = ready.reason .. ": " .. ready.message}
