// Command argo-cd runs Argo CD's own engine over the project's health checks and actions, in upstream's
// layout (resource_customizations/<group>/<kind>), with test data in upstream's form: health_test.yaml and
// actions/action_test.yaml. It prints one line for each test, "ok" or the difference, and exits with 1 if any
// test differs. With the argument "health" after the folder it reads objects as JSON from stdin, one a line,
// and prints the health of each.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	appv1 "github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

type healthTests struct {
	Tests []struct {
		InputPath    string `json:"inputPath"`
		HealthStatus struct {
			Status  string `json:"status"`
			Message string `json:"message"`
		} `json:"healthStatus"`
	} `json:"tests"`
}

type actionTests struct {
	DiscoveryTests []struct {
		InputPath string                 `json:"inputPath"`
		Result    []appv1.ResourceAction `json:"result"`
	} `json:"discoveryTests"`
	ActionTests []struct {
		Action             string `json:"action"`
		InputPath          string `json:"inputPath"`
		ExpectedOutputPath string `json:"expectedOutputPath"`
	} `json:"actionTests"`
}

var failed bool

// instant matches the time of an action, which no test can know in advance.
var instant = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)

func main() {
	root := os.Args[1]
	vm := lua.VM{ResourceOverrides: overrides(root)}
	if len(os.Args) > 2 && os.Args[2] == "health" {
		health(vm)
		return
	}
	for _, kind := range kinds(root) {
		for _, test := range read[healthTests](filepath.Join(kind, "health_test.yaml")).Tests {
			object := load(filepath.Join(kind, test.InputPath))
			script, _, err := vm.GetHealthScript(object)
			must(err)
			seen, err := vm.ExecuteHealthLua(object, script)
			must(err)
			got := [2]string{string(seen.Status), seen.Message}
			report("health", kind, test.InputPath, got, [2]string{test.HealthStatus.Status, test.HealthStatus.Message})
		}
		if _, err := os.Stat(filepath.Join(kind, "actions")); err != nil {
			continue
		}
		actions := read[actionTests](filepath.Join(kind, "actions", "action_test.yaml"))
		for _, test := range actions.DiscoveryTests {
			object := load(filepath.Join(kind, "actions", test.InputPath))
			scripts, err := vm.GetResourceActionDiscovery(object)
			must(err)
			seen, err := vm.ExecuteResourceActionDiscovery(object, scripts)
			must(err)
			disabled := func(all []appv1.ResourceAction) map[string]bool {
				named := map[string]bool{}
				for _, action := range all {
					named[action.Name] = action.Disabled
				}
				return named
			}
			report("discovery", kind, test.InputPath, disabled(seen), disabled(test.Result))
		}
		for _, test := range actions.ActionTests {
			object := load(filepath.Join(kind, "actions", test.InputPath))
			action, err := vm.GetResourceAction(object, test.Action)
			must(err)
			impacted, err := vm.ExecuteResourceAction(object, action.ActionLua, nil)
			must(err)
			if len(impacted) != 1 {
				report(test.Action, kind, test.InputPath, len(impacted), 1)
				continue
			}
			wanted := load(filepath.Join(kind, "actions", test.ExpectedOutputPath))
			report(test.Action, kind, test.InputPath, text(impacted[0].UnstructuredObj), text(wanted))
		}
	}
	if failed {
		os.Exit(1)
	}
}

func health(vm lua.VM) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		object := &unstructured.Unstructured{}
		must(object.UnmarshalJSON(lines.Bytes()))
		script, _, err := vm.GetHealthScript(object)
		must(err)
		seen, err := vm.ExecuteHealthLua(object, script)
		must(err)
		fmt.Println(seen.Status)
	}
	must(lines.Err())
}

// overrides returns the customizations as an administrator sets them in argocd-cm.
func overrides(root string) map[string]appv1.ResourceOverride {
	all := map[string]appv1.ResourceOverride{}
	for _, kind := range kinds(root) {
		folder := filepath.Join(kind, "actions")
		key := filepath.Base(filepath.Dir(kind)) + "/" + filepath.Base(kind)
		health := file(filepath.Join(kind, "health.lua"))
		if _, err := os.Stat(folder); err != nil {
			all[key] = appv1.ResourceOverride{HealthLua: health}
			continue
		}
		actions := appv1.ResourceActions{ActionDiscoveryLua: file(filepath.Join(folder, "discovery.lua"))}
		scripts, err := filepath.Glob(filepath.Join(folder, "*", "action.lua"))
		must(err)
		for _, script := range scripts {
			name := filepath.Base(filepath.Dir(script))
			actions.Definitions = append(actions.Definitions, appv1.ResourceActionDefinition{Name: name, ActionLua: file(script)})
		}
		definition, err := yaml.Marshal(actions)
		must(err)
		all[key] = appv1.ResourceOverride{HealthLua: health, Actions: string(definition)}
	}
	return all
}

func kinds(root string) []string {
	all, err := filepath.Glob(filepath.Join(root, "*", "*"))
	must(err)
	return all
}

func report(what, kind, input string, got, wanted any) {
	said := "ok"
	if !reflect.DeepEqual(got, wanted) {
		failed, said = true, fmt.Sprintf("is\n  %v\nand not\n  %v", got, wanted)
	}
	fmt.Printf("%s %s %s: %s\n", filepath.Base(kind), what, input, said)
}

func text(object *unstructured.Unstructured) string {
	bytes, err := json.MarshalIndent(object.Object, "  ", " ")
	must(err)
	return instant.ReplaceAllString(string(bytes), "(now)")
}

func load(path string) *unstructured.Unstructured {
	object := read[map[string]any](path)
	return &unstructured.Unstructured{Object: object}
}

func read[T any](path string) T {
	var into T
	must(yaml.Unmarshal([]byte(file(path)), &into))
	return into
}

func file(path string) string {
	bytes, err := os.ReadFile(path)
	must(err)
	return strings.TrimSpace(string(bytes)) + "\n"
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
