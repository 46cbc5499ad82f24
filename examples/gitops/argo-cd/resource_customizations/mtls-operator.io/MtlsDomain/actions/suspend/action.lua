-- The operator leaves everything as it is.
obj.spec.suspend = true
return obj
