package graph

import (
	"context"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"trust-worker/server/graph/schema"
)

// bounds refuses queries that are too deep or unfold to too much. Fragments are
// measured once each, so that measuring is cheap whatever they unfold to.
type bounds struct{ depth int }

// ExtensionName names the extension.
func (bounds) ExtensionName() string { return "Bounds" }

// Validate accepts every schema.
func (bounds) Validate(graphql.ExecutableSchema) error { return nil }

// MutateOperationContext refuses; it changes nothing.
func (b bounds) MutateOperationContext(_ context.Context, op *graphql.OperationContext) *gqlerror.Error {
	m := measurer{fragments: map[string]size{}}
	s := m.set(op.Operation.SelectionSet)
	switch {
	case s.fields > maxFields:
		return gqlerror.Errorf("the query asks for more than %d fields", maxFields)
	case s.depth > b.depth:
		return gqlerror.Errorf("the query is deeper than %d levels", b.depth)
	case s.lists > maxIntrospected:
		return gqlerror.Errorf("the introspection is nested too deeply")
	}
	return nil
}

// maxIntrospected is how many lists of the schema may be nested in each other:
// types, their fields, their arguments. Each level multiplies the answer.
const maxIntrospected = 3

var introspected = map[string]bool{"types": true, "fields": true, "args": true, "inputFields": true, "enumValues": true,
	"interfaces": true, "possibleTypes": true, "directives": true}

// size is what a selection unfolds to, saturating well above every limit.
type size struct {
	fields int
	depth  int // of data
	lists  int // of the schema, nested
}

type measurer struct{ fragments map[string]size }

func (m *measurer) set(set ast.SelectionSet) (s size) {
	for _, selection := range set {
		one := m.one(selection)
		s.fields = min(s.fields+one.fields, 1<<20)
		s.depth, s.lists = max(s.depth, one.depth), max(s.lists, one.lists)
	}
	return s
}

func (m *measurer) one(selection ast.Selection) size {
	switch f := selection.(type) {
	case *ast.Field:
		s := m.set(f.SelectionSet)
		s.fields++
		switch {
		case f.ObjectDefinition != nil && len(f.ObjectDefinition.Name) > 2 && f.ObjectDefinition.Name[:2] == "__":
			if introspected[f.Name] {
				s.lists++
			}
		case f.Name == "__schema" || f.Name == "__type":
			s.depth = 1
		default:
			s.depth++
		}
		return s
	case *ast.InlineFragment:
		return m.set(f.SelectionSet)
	case *ast.FragmentSpread:
		s, known := m.fragments[f.Name]
		if !known && f.Definition != nil {
			s = m.set(f.Definition.SelectionSet) // the validator has refused cycles
			m.fragments[f.Name] = s
		}
		return s
	}
	return size{}
}

// weigh makes each query at the root cost fifty and five times its fields, so
// that a request has room for a handful of them under aliases.
func weigh(c *schema.ComplexityRoot) {
	cost := func(child int) int { return 50 + 5*child }
	q := &c.Query
	q.Image = func(child int, _ string) int { return cost(child) }
	q.TrustImage = func(child int, _ string) int { return cost(child) }
	q.ExpandedRepoInfo = func(child int, _ string) int { return cost(child) }
	q.ImageList = func(child int, _ string, _ *schema.PageInput) int { return cost(child) }
	q.ImageListForDigest = func(child int, _ string, _ *schema.PageInput) int { return cost(child) }
	q.RepoListWithNewestImage = func(child int, _ *schema.PageInput) int { return cost(child) }
	q.GlobalSearch = func(child int, _ string, _ *schema.Filter, _ *schema.PageInput) int { return cost(child) }
	q.Referrers = func(child int, _, _ string, _ []string) int { return cost(child) }
}
