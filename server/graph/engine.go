package graph

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/executor"
	"github.com/99designs/gqlgen/graphql/handler/extension"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"trust-worker/cache"
	"trust-worker/server/graph/schema"
)

// Limits bound one request. All must be positive.
type Limits struct {
	Complexity int // see weigh
	Depth      int // levels of fields
	Images     int // images made for one request
	Scan       int // records looked at for one request
}

// Engine executes queries. It is safe for concurrent use.
type Engine struct {
	exec   *executor.Executor
	limits Limits
	names  []string
	log    *slog.Logger
}

// maxTokens and maxFields bound the text of a query and what its fragments
// unfold to; zot's largest has some fifty fields.
const (
	maxTokens = 2000
	maxFields = 1000
)

// New makes an Engine. registryNames are the hosts by which references name the images
// of this storage.
func New(limits Limits, registryNames []string, log *slog.Logger) *Engine {
	e := &Engine{limits: limits, names: registryNames, log: log}
	cfg := schema.Config{Resolvers: &Resolver{}}
	weigh(&cfg.Complexity)
	e.exec = executor.New(schema.NewExecutableSchema(cfg))
	e.exec.SetParserTokenLimit(maxTokens)
	e.exec.SetQueryCache(&documents{})
	e.exec.SetErrorPresenter(e.present)
	e.exec.SetRecoverFunc(func(_ context.Context, p any) error {
		return fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	})
	e.exec.Use(bounds{depth: limits.Depth}) // first: what follows unfolds fragments
	e.exec.Use(extension.FixedComplexityLimit(limits.Complexity))
	e.exec.Use(extension.Introspection{})
	return e
}

// Do executes one request on snap. The response's errors are fit for the client.
func (e *Engine) Do(ctx context.Context, snap *cache.Snapshot, params *graphql.RawParams) *graphql.Response {
	ctx = context.WithValue(ctx, requestKey{}, &request{snap: snap, limits: e.limits, names: e.names})
	ctx = graphql.StartOperationTrace(ctx)
	op, errs := e.exec.CreateOperationContext(ctx, params)
	if errs != nil {
		return e.exec.DispatchError(graphql.WithOperationContext(ctx, op), errs)
	}
	next, ctx := e.exec.DispatchOperation(ctx, op)
	return next(ctx)
}

// clientError is an error whose text is for the client.
type clientError string

func (e clientError) Error() string { return string(e) }

func (e *Engine) present(ctx context.Context, err error) *gqlerror.Error {
	var known *gqlerror.Error
	if errors.As(err, &known) && known.Err == nil {
		return graphql.DefaultErrorPresenter(ctx, err)
	}
	var client clientError
	shown := &gqlerror.Error{Message: "it failed; the daemon's log says why", Path: graphql.GetPath(ctx)}
	switch {
	case errors.As(err, &client):
		shown.Message = string(client)
	case errors.Is(err, cache.ErrUnlisted):
		shown.Message = "it is not known: its repository could not be listed; the daemon's log says why"
	case errors.Is(err, cache.ErrPartial):
		shown.Message = "it is not known yet: the first pass over storage is not over"
	case errors.Is(err, cache.ErrNotFound):
		shown.Message = "it is not in the cache"
	case errors.Is(err, context.Canceled):
		shown.Message = "the client is gone"
	default:
		e.log.Error("query failed", "error", err)
	}
	return shown
}

// documents keeps parsed queries: clients send few different ones.
type documents struct {
	mu   sync.Mutex
	docs map[string]*ast.QueryDocument
}

const maxDocuments = 256

// Get returns a document that Add kept.
func (d *documents) Get(_ context.Context, query string) (*ast.QueryDocument, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	doc, ok := d.docs[query]
	return doc, ok
}

// Add keeps a document. When there are too many all are forgotten.
func (d *documents) Add(_ context.Context, query string, doc *ast.QueryDocument) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.docs == nil || len(d.docs) >= maxDocuments {
		d.docs = map[string]*ast.QueryDocument{}
	}
	d.docs[query] = doc
}
