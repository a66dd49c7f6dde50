package signtest

import (
	"encoding/json"
	"fmt"
)

// Policy is a trust policy with one statement for everything. rest goes on after the
// level: `,"override":{…}`; stores are like "ca:acme".
func Policy(level, rest string, stores ...string) string {
	return fmt.Sprintf(`{"version":"1.0","trustPolicies":[{"name":"all","registryScopes":["*"],
		"signatureVerification":{"level":%q%s},"trustStores":%s,"trustedIdentities":["*"]}]}`, level, rest, must(json.Marshal(stores)))
}
