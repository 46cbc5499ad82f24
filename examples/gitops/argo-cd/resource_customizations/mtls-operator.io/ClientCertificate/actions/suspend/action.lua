-- The operator then changes nothing.
obj.spec.suspend = true
return obj
