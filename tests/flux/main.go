// Command flux processes the repository as Flux's controllers do, by their own packages:
//
//	flux archive DIR OUT       packs a Git checkout as source-controller does, and unpacks the archive into
//	                           OUT as its consumers do
//	flux check FILE...         reads every Flux object of the files as strictly as its
//	                           CustomResourceDefinition is
//	flux health FILE           reads objects as JSON from stdin, one a line; prints the answer of the
//	                           healthCheckExprs of the Kustomizations in FILE for each, and after it the
//	                           answer of kstatus without them
//	flux kustomize DIR         builds DIR as kustomize does
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	kustomizeapi "github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/artifact/config"
	"github.com/fluxcd/pkg/artifact/storage"
	"github.com/fluxcd/pkg/runtime/cel"
	"github.com/fluxcd/pkg/sourceignore"
	"github.com/fluxcd/pkg/tar"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "flux:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "archive":
		return archive(args[1], args[2])
	case len(args) > 1 && args[0] == "check":
		return check(args[1:])
	case len(args) == 2 && args[0] == "health":
		return health(args[1])
	case len(args) == 2 && args[0] == "kustomize":
		return kustomize(args[1])
	}
	return errors.New("archive DIR OUT | check FILE... | health FILE | kustomize DIR")
}

// archive packs as GitRepositoryReconciler does: by the .sourceignore of the checkout, else by the default
// patterns.
func archive(dir, out string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	kept, err := os.MkdirTemp("", "flux")
	if err != nil {
		return err
	}
	defer os.RemoveAll(kept)
	store, err := storage.New(&config.Options{
		StoragePath: kept, StorageAddress: ":0", StorageAdvAddress: "localhost", ArtifactDigestAlgo: "sha256",
	})
	if err != nil {
		return err
	}
	artifact := meta.Artifact{Path: "gitrepository/flux-system/mtls-operator/main.tar.gz", Revision: "main"}
	if err := store.MkdirAll(artifact); err != nil {
		return err
	}
	domain := filepath.SplitList(dir)
	patterns, err := sourceignore.LoadIgnorePatterns(dir, domain)
	if err != nil {
		return err
	}
	if err := store.Archive(&artifact, dir, storage.SourceIgnoreFilter(patterns, domain)); err != nil {
		return err
	}
	packed, err := os.Open(store.LocalPath(artifact))
	if err != nil {
		return err
	}
	defer packed.Close()
	return tar.Untar(packed, out, tar.WithMaxUntarSize(-1))
}

// objects returns the objects of a file, each as JSON.
func objects(file string) ([][]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all [][]byte
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		object, err := yaml.YAMLToJSONStrict(document)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if string(object) != "null" {
			all = append(all, object)
		}
	}
}

type typed struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

func check(files []string) error {
	for _, file := range files {
		all, err := objects(file)
		if err != nil {
			return err
		}
		for _, object := range all {
			var its typed
			if err := json.Unmarshal(object, &its); err != nil {
				return err
			}
			var into any
			switch its {
			case typed{kustomizev1.GroupVersion.String(), kustomizev1.KustomizationKind}:
				into = &kustomizev1.Kustomization{}
			case typed{sourcev1.GroupVersion.String(), sourcev1.GitRepositoryKind}:
				into = &sourcev1.GitRepository{}
			case typed{helmv2.GroupVersion.String(), helmv2.HelmReleaseKind}:
				into = &helmv2.HelmRelease{}
			default:
				continue
			}
			decoder := json.NewDecoder(bytes.NewReader(object))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(into); err != nil {
				return fmt.Errorf("%s: %s: %w", file, its.Kind, err)
			}
			fmt.Println(its.Kind)
		}
	}
	return nil
}

func health(file string) error {
	all, err := objects(file)
	if err != nil {
		return err
	}
	evaluators := map[typed]*cel.StatusEvaluator{}
	for _, object := range all {
		var its kustomizev1.Kustomization
		if err := json.Unmarshal(object, &its); err != nil || its.Kind != kustomizev1.KustomizationKind {
			continue
		}
		for _, one := range its.Spec.HealthCheckExprs {
			exprs := kustomizeapi.HealthCheckExpressions{Current: one.Current, InProgress: one.InProgress, Failed: one.Failed}
			evaluator, err := cel.NewStatusEvaluator(&exprs)
			if err != nil {
				return fmt.Errorf("%s of %s: %w", one.Kind, its.Name, err)
			}
			evaluators[typed{one.APIVersion, one.Kind}] = evaluator
		}
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var object unstructured.Unstructured
		if err := object.UnmarshalJSON(lines.Bytes()); err != nil {
			return err
		}
		without, err := status.Compute(&object)
		if err != nil {
			return err
		}
		evaluator, ok := evaluators[typed{object.GetAPIVersion(), object.GetKind()}]
		if !ok {
			return fmt.Errorf("there are no healthCheckExprs for %s", object.GetKind())
		}
		with, err := evaluator.Evaluate(context.Background(), &object)
		if err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
		fmt.Println(with.Status, without.Status)
	}
	return lines.Err()
}

func kustomize(dir string) error {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return err
	}
	text, err := built.AsYaml()
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(text)
	return err
}
