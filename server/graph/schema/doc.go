// Package schema is zot's GraphQL schema, with trust-worker's additions, and the code
// that gqlgen makes of it (make generate). Change schema.graphql; the other files
// follow.
package schema
