// Where the tests of the chart take the Prometheus operator's CustomResourceDefinitions from. No Go is built of it.
module tests/monitoring

go 1.25.0

require github.com/prometheus-operator/prometheus-operator v0.94.0
