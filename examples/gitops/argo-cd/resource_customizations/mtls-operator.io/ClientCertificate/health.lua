-- Ready is True when the Secret has the certificate and the domain accepts it. The state is unknown until
-- the operator has reconciled this generation.
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
  return {status = "Progressing", message = "the operator has not reconciled this generation yet"}
end
local accepted, ready = condition("Accepted"), condition("Ready")
if accepted ~= nil and accepted.reason == "Suspended" then
  return {status = "Suspended", message = accepted.message}
end
if ready == nil then
  return {status = "Progressing", message = "the operator has not reconciled this generation yet"}
end
if ready.status == "True" then
  return {status = "Healthy", message = ready.message}
end
if ready.status == "False" then
  return {status = "Degraded", message = ready.reason .. ": " .. ready.message}
end
return {status = "Progressing", message = ready.reason .. ": " .. ready.message}
