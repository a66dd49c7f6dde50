package main

import (
	"fmt"
	"net"

	"trust-worker/changes/webhook"
	"trust-worker/trust"
)

// configKey is one key of the configuration file. Most set a flag, whose type
// and default are the key's; the others have a shape of their own.
type configKey struct {
	path string // dotted: "storage.rootDirectory"
	flag string // the flag that it sets, or ""
	// doc says what the key means, what may be lost by it, what is trusted, how
	// large it grows: docs/configuration.md and the schema are made of it.
	doc string
	zot bool // also taken from zot's own file (--zot-config)

	// For keys without a flag: the JSON Schema of the value, and what takes it.
	schema map[string]any
	take   func(c *configValues, value any) error
}

// configKeys are all keys, in the order of the documentation: zot's own names
// where zot has them.
var configKeys = []configKey{
	{path: "storage.rootDirectory", flag: "root", zot: true, doc: `It is read and never written, but for the two trust directories and, by default, the state directory below it. Everything in it counts as written by whoever may push.`},
	{path: "storage.layout", flag: "layout", doc: `auto recognises the storage of CNCF distribution by what it has below docker/registry/v2. If repositories in OCI image layouts are at the same root, the start ends with an error until the layout is named. Where distribution's storage comes beside image layouts that a running daemon reads, its answers read unknown; one that reads distribution's goes on doing so. What pushers choose decides nothing about it.`},
	{path: "storage.subPaths", zot: true, doc: `Further roots, as in zot: each key is a route, and the repositories whose names begin with it are in its rootDirectory and nowhere else. The trust directories and the state are the main root's.`,
		schema: map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "object",
			"properties": map[string]any{"rootDirectory": map[string]any{"type": "string"}}, "required": []string{"rootDirectory"}}},
		take: takeSubPaths},
	{path: "extensions.trust.enable", flag: "trust", zot: true, doc: `Off: nothing is verified, and no signature is listed.`},
	{path: "extensions.trust.cosign", flag: "cosign", zot: true, doc: `Off: cosign's signatures leave the answers, and its upload routes do not exist. What is known of them stays, so that switching it on again verifies nothing twice.`},
	{path: "extensions.trust.notation", flag: "notation", zot: true, doc: `The same for notation.`},
	{path: "log.level", flag: "log-level", doc: `Logs go to standard error. Neither key material nor tokens are logged, fingerprints are.`},
	{path: "log.format", flag: "log-format", doc: `json is one object a line.`},
	{path: "http.address", doc: `With port, the address to listen on, as in zot; 127.0.0.1 if only the port is given.`,
		schema: map[string]any{"type": "string"}, take: func(c *configValues, v any) error { return takeString(&c.address, v) }},
	{path: "http.port", doc: `The port as text, as in zot. Nothing listens unless port or listen is given.`,
		schema: map[string]any{"type": "string"}, take: func(c *configValues, v any) error { return takeString(&c.port, v) }},
	{path: "http.listen", flag: "listen", doc: `Addresses, host:port or unix:/path. On loopback addresses whoever can connect may read; elsewhere reading needs a credential. Uploads need one everywhere (but see http.insecureUploads), except over a Unix socket, where the file's permissions decide.`},
	{path: "http.tls.cert", flag: "tls-cert", doc: `Certificate file for TLS. A renewed file is picked up without a restart.`},
	{path: "http.tls.key", flag: "tls-key", doc: `The key to it.`},
	{path: "http.tls.cacert", flag: "tls-client-ca", doc: `Clients with a certificate of this CA may read; those named in accessControl.adminPolicy.users may also upload and delete.`},
	{path: "http.auth.htpasswd.path", flag: "http-htpasswd", doc: `Users with bcrypt hashes, who may read. The file is read again when it changes.`},
	{path: "http.accessControl.adminPolicy.users", flag: "http-admin", doc: `Who may upload and delete trust material: whoever is named here decides what is trusted.`},
	{path: "http.reads", flag: "http-reads", doc: `Who may read over TCP: "open" or "credential".`},
	{path: "http.insecureUploads", flag: "insecure-uploads", doc: `On: anyone who can connect can add a key, that is, make anything trusted.`},
	{path: "http.readTokenFiles", flag: "http-read-token-file", doc: `Files of bearer tokens that may read, one a line.`},
	{path: "http.writeTokenFiles", flag: "http-write-token-file", doc: `Files of bearer tokens that may also upload and delete, besides upload.token in the state directory, which the first start writes.`},
	{path: "http.hintTokenFiles", flag: "http-hint-token-file", doc: `Files of bearer tokens for a registry that tells of its events (POST /api/v1/events/zot, …/distribution or …/harbor). They may say where to look again, and nothing else.`},
	{path: "http.corsOrigins", flag: "http-cors-origin", doc: `Origins, as https://search.example, whose pages may read. Where reading is open, whoever such a page belongs to can read what its visitors' browsers reach. Changes from another origin are refused always.`},
	{path: "http.hostNames", flag: "http-host-name", doc: `Names by which clients call a loopback listener, besides localhost and IP addresses. Other Host headers are refused, which prevents DNS rebinding.`},
	{path: "http.truststoreName", flag: "truststore-name", doc: `The trust store of certificate uploads that name none. Without it they are refused; with --zot-config it is "default", as in present zot.`},
	{path: "http.gate", flag: "gate", doc: `Reverse proxies ask at /gate which requests to a registry to let through; gates.md has recipes. enforce refuses the manifests of images that are not trusted. report lets everything pass, and says in headers, the log and metrics what would be refused.`},
	{path: "http.gateTokenFile", flag: "gate-token-file", doc: `With such a token a proxy vouches that its client may push: the client may then read images that are not trusted yet, and write. Whoever has the token passes the gate.`},
	{path: "http.pprof", flag: "pprof", doc: `A loopback address that serves profiles of the running program.`},
	{path: "trustWorker.state", flag: "state", doc: `The cache in it can be made again from storage, which costs time alone. Keep two files when you move it: trust-memory.json, which says whether a trust policy of yours was in force, and upload.token. It grows by about half a kilobyte for each signature once the database has been compacted (up to 1.8 kB before), and by as much again while a new base is published.`},
	{path: "trustWorker.cosignDir", flag: "cosign-dir", doc: `Whoever can write here decides what is trusted. It may be elsewhere than below the root, and be a mounted Secret. One that is named here and is not there shows among the refused files; the default need not exist.`},
	{path: "trustWorker.notationDir", flag: "notation-dir", doc: `The same for notation's truststore and trustpolicy.json.`},
	{path: "trustWorker.registryNames", flag: "registry-name", doc: `The hosts by which trust policy scopes, and references to images (get r.example/app:1), name this registry. Without it any host matches in scopes and none in references, and two statements for one repository that differ only by host read policy-ambiguous.`},
	{path: "trustWorker.revocation", flag: "revocation", doc: `online asks the OCSP responders and CRL addresses of chains that end in a trusted certificate; offline never connects, and chains with addresses read unknown where revocation is enforced; ignore never connects, and gives each such answer the note revocation-not-checked. See revocation.md.`},
	{path: "trustWorker.lease", flag: "lease", doc: `How long readers believe the answers once the daemon has stopped or hangs: afterwards all read unknown/stale. A longer lease survives longer outages. If the daemon is down, a key that you have removed is still honoured until the lease ends.`},
	{path: "trustWorker.scanInterval", flag: "scan-interval", doc: `The longest that a change which no event told of stays unseen. The pass itself comes on top of it: trust-worker status says how long that takes. An unchanged repository costs one stat and, in CNCF distribution's layout, one for each tag and each manifest.`},
	{path: "trustWorker.slowInterval", flag: "slow-interval", doc: `How often the bytes of stored signatures, and of the images that they are about, are read and hashed again: what is altered in place stays unseen for no longer than this and the pass itself. When the last pass was is remembered across restarts.`},
	{path: "trustWorker.workers", flag: "workers", doc: `More than processors help when storage is slow.`},
	{path: "trustWorker.mirrorPolicy", flag: "mirror-policy", doc: `Off: trustpolicy.json is never written. The default policy is computed all the same.`},
	{path: "trustWorker.zotPolicy", flag: "zot-policy", doc: `On: the trustpolicy.json that zot writes at its starts, byte for byte, stands for the default policy: every store on disk is trusted, not only those named default, and the file is never written by this program. Without it that file rules as it is written. Implied by --zot-config.`},
	{path: "trustWorker.watch", flag: "watch", doc: `Off: no inotify. Changes in storage show at the next pass (scanInterval), changes in the trust directories within 10 seconds.`},
	{path: "trustWorker.maxUnmatched", flag: "max-unmatched", doc: `Maximum number of signatures per repository that are kept in the look-up index although no trusted key verifies them. Beyond it, a new key finds the other signatures of that repository only by a pass over all of them, later than elsewhere; trust-worker status names such repositories.`},
	{path: "trustWorker.historyDays", flag: "history-days", doc: `The changes of trust are kept in the state directory, a file a day, for trust-worker history and /api/v1/history. All days together have 256 MiB at most: the oldest go first.`},
	{path: "trustWorker.scopes", doc: `Narrows who may sign with cosign below a prefix of repositories ("" is the whole storage). With alone, keys and identities that lie above the prefix's own directory in _cosign do not count there. With require, an image needs good signatures by that many distinct signers, of cosign and notation; until then each reads untrusted, too-few-signers. Settings of all prefixes of a repository add up: the deepest alone, the largest require. Leaving the setting out where it was in force ends the start with an error; scopes: [] says that nothing is narrowed. See scopes.md.`,
		schema: map[string]any{"type": "array", "items": map[string]any{"type": "object", "additionalProperties": false,
			"properties": map[string]any{"prefix": map[string]any{"type": "string"}, "alone": map[string]any{"type": "boolean"},
				"require": map[string]any{"type": "integer", "minimum": 1, "maximum": maxRequire}}, "required": []string{"prefix"}}},
		take: takeScopes},
	{path: "trustWorker.cluster.servers", flag: "cluster", doc: `NATS servers with JetStream, version 2.11 or later. Workers over one storage, or over copies of it, share what they have verified, so that each signature is verified once; see scale.md. While no server can be reached, each worker verifies everything itself. A password in a URL shows in the list of processes: use credentialsFile.`},
	{path: "trustWorker.cluster.keyFile", flag: "cluster-key", doc: `Whoever has the key can make anything trusted at every worker of the cluster. The NATS servers need not have it, and their accounts do not replace it. Another key is another cluster; keys are exchanged by a restart of all workers.`},
	{path: "trustWorker.cluster.credentialsFile", flag: "cluster-credentials", doc: `The account at the NATS servers. Who has one and not the key can keep messages from arriving, which costs work and time.`},
	{path: "trustWorker.cluster.tls.cacert", flag: "cluster-ca", doc: `For URLs that begin with tls://, and servers that require TLS.`},
	{path: "trustWorker.cluster.tls.cert", flag: "cluster-cert", doc: `For servers that ask for a certificate.`},
	{path: "trustWorker.cluster.tls.key", flag: "cluster-cert-key", doc: `The key to it.`},
	{path: "trustWorker.cluster.events", flag: "cluster-events", doc: `Events are hints: whoever may publish there can have repositories looked at, and nothing else.`},
	{path: "trustWorker.cluster.node", flag: "cluster-node", doc: `No two workers of a cluster may have the same name: neither would count on the other. Letters, digits, - and _.`},
	{path: "trustWorker.webhooks", doc: `Receivers of trust changes. Each change is posted to url as one CloudEvent, signed with the secret in secretFile (16 characters or more, or whsec_ and base64). While the receiver cannot be reached, it is tried again; a change that the receiver refuses five times is given up and counted. Up to 2,000 changes wait, across restarts; a receiver that is further behind gets a reset. An example is in http.md.`,
		schema: map[string]any{"type": "array", "items": map[string]any{"type": "object", "additionalProperties": false,
			"properties": map[string]any{"url": map[string]any{"type": "string"}, "secretFile": map[string]any{"type": "string"}}, "required": []string{"url", "secretFile"}}},
		take: takeWebhooks},
}

func takeString(to *string, v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("%v is not text: put it in quotes", v)
	}
	*to = s
	return nil
}

func takeWebhooks(c *configValues, v any) error {
	list, ok := v.([]any)
	if !ok {
		return fmt.Errorf("not a list")
	}
	for i, v := range list {
		m, _ := v.(map[string]any) // what is none has no url either
		var w webhook.Config
		for name, field := range map[string]*string{"url": &w.URL, "secretFile": &w.SecretFile} {
			text, ok := m[name].(string)
			if !ok {
				return fmt.Errorf("entry %d has no %s", i+1, name)
			}
			*field = text
		}
		if len(m) != 2 {
			return fmt.Errorf("entry %d: known here: url, secretFile", i+1)
		}
		if err := w.Check(); err != nil {
			return fmt.Errorf("entry %d: %w", i+1, err)
		}
		c.webhooks = append(c.webhooks, w)
	}
	return nil
}

// maxNarrowings bounds the entries of trustWorker.scopes: they stand in the trust memory.
const maxNarrowings = 1000

// maxRequire is the most signers that an image can be required to have.
const maxRequire = 100

func takeScopes(c *configValues, v any) error {
	list, ok := v.([]any)
	if !ok {
		return fmt.Errorf("not a list")
	}
	if len(list) > maxNarrowings {
		return fmt.Errorf("%d entries; at most %d are taken", len(list), maxNarrowings)
	}
	c.scopes = []trust.Narrowing{}
	for i, v := range list {
		m, _ := v.(map[string]any)
		prefix, ok := m["prefix"].(string)
		if !ok || prefix != "" && !trust.ValidScope(prefix) {
			return fmt.Errorf(`entry %d: the prefix %.100q cannot be used: it is the beginning of repositories' names in lower case, on whole elements, such as team-a or team-a/app ("" for the whole storage)`, i+1, fmt.Sprint(m["prefix"]))
		}
		n := trust.Narrowing{Prefix: prefix}
		for name, v := range m {
			switch name {
			case "prefix":
			case "alone":
				if n.Alone, ok = v.(bool); !ok {
					return fmt.Errorf("entry %d: alone must be true or false, and is %v", i+1, v)
				}
			case "require":
				if n.Require = wholeNumber(v); n.Require < 1 || n.Require > maxRequire {
					return fmt.Errorf("entry %d: require must be a number of signers from 1 to %d, and is %v", i+1, maxRequire, v)
				}
			default:
				return fmt.Errorf("entry %d: unknown key %q; known here: prefix, alone, require", i+1, name)
			}
		}
		switch {
		case n.Alone && prefix == "":
			return fmt.Errorf("entry %d: the whole storage cannot stand alone: nothing lies above it", i+1)
		case !n.Alone && n.Require == 0:
			return fmt.Errorf("entry %d: it says neither alone: true nor require, and so nothing", i+1)
		}
		for _, other := range c.scopes {
			if other.Prefix == prefix {
				return fmt.Errorf("entry %d: the prefix %q is there twice", i+1, prefix)
			}
		}
		c.scopes = append(c.scopes, n)
	}
	return nil
}

func wholeNumber(v any) int {
	switch n := v.(type) {
	case uint64:
		if n <= maxRequire {
			return int(n)
		}
	case int64:
		if n <= maxRequire {
			return int(n)
		}
	}
	return 0
}

func takeSubPaths(c *configValues, v any) error {
	routes, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("not a map of routes")
	}
	c.subPaths = map[string]string{}
	for route, v := range routes {
		sub, ok := v.(map[string]any)
		dir, ok2 := sub["rootDirectory"].(string)
		if !ok || !ok2 || dir == "" {
			return fmt.Errorf("route %s has no rootDirectory", route)
		}
		if err := localStorage(sub); err != nil {
			return fmt.Errorf("route %s: %w", route, err)
		}
		c.subPaths[route] = dir
	}
	return nil
}

// localStorage refuses zot's remote storage, which has no more than a cache in
// rootDirectory.
func localStorage(storage map[string]any) error {
	if driver, _ := storage["storageDriver"].(map[string]any); len(driver) > 0 {
		return fmt.Errorf("%v is remote storage, which is not supported", driver["name"])
	}
	return nil
}

// finish joins what several keys say.
func (c *configValues) finish() {
	if c.port == "" {
		return
	}
	if c.address == "" {
		c.address = "127.0.0.1"
	}
	listen := net.JoinHostPort(c.address, c.port)
	if more, ok := c.flags["listen"]; ok {
		listen += "," + more.text
	}
	c.flags["listen"] = configValue{text: listen, at: c.portAt}
}
