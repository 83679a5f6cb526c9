// verdict says what Flux, Helm and whoever else reads kstatus make of objects: by their own code, for tests that hold ours
// to it. In: {"exprs": {KIND: {"inProgress", "failed", "current"}}, "objects": [...]}. Out: one {"kstatus", "flux"} each.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type asked struct {
	Exprs   map[string]kustomize.HealthCheckExpressions `json:"exprs"`
	Objects []*unstructured.Unstructured                `json:"objects"`
}

type answer struct {
	KStatus string `json:"kstatus"`
	Flux    string `json:"flux,omitempty"`
}

func judge(object *unstructured.Unstructured, evaluators map[string]*cel.StatusEvaluator) (answer, error) {
	found, err := status.Compute(object)
	if err != nil {
		return answer{}, err
	}
	said := answer{KStatus: found.Status.String()}
	if evaluator, ok := evaluators[object.GetKind()]; ok {
		made, err := evaluator.Evaluate(context.Background(), object)
		if err != nil {
			return answer{}, fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
		said.Flux = made.Status.String()
	}
	return said, nil
}

func run() error {
	var in asked
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		return err
	}
	evaluators := map[string]*cel.StatusEvaluator{}
	for kind, exprs := range in.Exprs {
		evaluator, err := cel.NewStatusEvaluator(&exprs)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		evaluators[kind] = evaluator
	}
	said := []answer{}
	for _, object := range in.Objects {
		one, err := judge(object, evaluators)
		if err != nil {
			return err
		}
		said = append(said, one)
	}
	return json.NewEncoder(os.Stdout).Encode(said)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
