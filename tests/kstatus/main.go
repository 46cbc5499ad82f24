// Command kstatus reports the status of Kubernetes objects: one JSON object per line on stdin, one status per
// line on stdout ("InProgress", "Current", "Failed", "Terminating" or "Unknown"), computed by the library
// that kubectl apply tools (Flux, Argo, kpt) wait with.
package main

import (
	"bufio"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

func main() {
	if err := judge(); err != nil {
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(1)
	}
}

func judge() error {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var object unstructured.Unstructured
		if err := object.UnmarshalJSON(lines.Bytes()); err != nil {
			return fmt.Errorf("not an object: %w", err)
		}
		verdict, err := status.Compute(&object)
		if err != nil {
			return fmt.Errorf("%s: %w", object.GetName(), err)
		}
		fmt.Println(verdict.Status)
	}
	return lines.Err()
}
