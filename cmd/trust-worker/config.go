package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"trust-worker/cache"
	"trust-worker/cache/mirror"
	"trust-worker/cache/store"
	"trust-worker/changes"
	"trust-worker/changes/webhook"
	"trust-worker/internal/imageref"
	"trust-worker/internal/inert"
	"trust-worker/layout"
	"trust-worker/scheduler"
	"trust-worker/trust"
	"trust-worker/verifier/revocation"
	"trust-worker/verifier/truststore"
)

// settings are what every command may be told. A value comes from the flag,
// else from TRUST_WORKER_<NAME>, else from the configuration file, else from the
// default: these only set flags. subPaths, webhooks and scopes are in the file alone.
type settings struct {
	config, zotConfig string

	root, layout, state    string
	cosignDir, notationDir string
	registryNames          []string
	enable                 bool
	cosign, notation       bool
	revocation             string
	lease, scanInterval    time.Duration
	slowInterval           time.Duration
	workers                int
	mirrorPolicy           bool
	zotPolicy              bool
	watch                  bool
	logLevel, logFormat    string
	maxFiled               int64
	historyDays            int
	subPaths               map[string]string // route → root directory
	sources                map[string]string // flag → where its value comes from, if it is not the default
	http                   httpSettings
	cluster                clusterSettings
	webhooks               []webhook.Config
	scopes                 []trust.Narrowing // nil: no file has them
	scopesFile             string            // that has those which the loader goes by, "" for none

	memory *truststore.Memory // this process's, once it owns a state directory
	anew   bool               // the next opening of the cache sets aside what is there
}

// register declares the flags that commands share.
func (s *settings) register(f *pflag.FlagSet) {
	// A word in back quotes is what the help shows for the value.
	f.StringVar(&s.config, "config", "", "read settings from `FILE`, YAML or JSON (default "+defaultConfig+" if it is there; none: read no file)")
	f.StringVar(&s.zotConfig, "zot-config", "", "take storage and trust settings from zot's configuration `FILE`")
	f.StringVar(&s.root, "root", "", "the registry's storage directory `DIR`")
	f.StringVar(&s.layout, "layout", string(layout.Auto), "`LAYOUT` of the storage: oci (zot), distribution (registry:2, registry:3, Harbor), or auto: whichever is there")
	f.StringVar(&s.state, "state", "", "directory `DIR` with the answers (default $STATE_DIRECTORY, else ROOT/_trust)")
	f.StringVar(&s.cosignDir, "cosign-dir", "", "directory `DIR` of cosign public keys (default ROOT/_cosign)")
	f.StringVar(&s.notationDir, "notation-dir", "", "directory `DIR` of notation's trust store and trust policy (default ROOT/_notation)")
	f.StringSliceVar(&s.registryNames, "registry-name", nil, "`HOST` of this registry, as trust policies and references such as r.example/app:1 name it (repeatable; default: any in trust policies, none in references)")
	f.BoolVar(&s.enable, "trust", true, "verify signatures at all (extensions.trust.enable)")
	f.BoolVar(&s.cosign, "cosign", true, "verify cosign signatures")
	f.BoolVar(&s.notation, "notation", true, "verify notation signatures")
	f.StringVar(&s.revocation, "revocation", "online", "`MODE` of revocation checks for notation certificates: online, offline or ignore")
	f.DurationVar(&s.lease, "lease", store.DefaultLease, "`TIME` for which readers believe answers that the daemon has not confirmed")
	f.DurationVar(&s.scanInterval, "scan-interval", time.Minute, "`TIME` between passes over storage")
	f.DurationVar(&s.slowInterval, "slow-interval", 24*time.Hour, "`TIME` between passes that read and hash all signatures, and the images that they sign, again (negative: never)")
	f.IntVar(&s.workers, "workers", 0, "`NUMBER` of repositories that are worked on at once (default one for each processor, at least two)")
	f.BoolVar(&s.mirrorPolicy, "mirror-policy", true, "write the default trust policy to _notation/trustpolicy.json while no other policy is there")
	f.BoolVar(&s.zotPolicy, "zot-policy", false, "take the trustpolicy.json that zot writes at its starts for the default policy (implied by --zot-config)")
	f.BoolVar(&s.watch, "watch", true, "watch directories for changes; without, only the passes see them")
	f.Int64Var(&s.maxFiled, "max-unmatched", 100_000, "`NUMBER` of index rows that a repository may have for signatures that no trusted key verifies")
	f.IntVar(&s.historyDays, "history-days", changes.DefaultDays, "`NUMBER` of days for which changes are kept for the command history (0: none)")
	f.StringVar(&s.logLevel, "log-level", "info", "`LEVEL` of the log: debug, info, warn or error")
	f.StringVar(&s.logFormat, "log-format", "text", "`FORMAT` of the log: text or json")
}

// complete fills in what the flags left, in the order of precedence, and
// checks it. needRoot says that the command cannot do without storage.
func (s *settings) complete(cmd *cobra.Command, needRoot bool) error {
	flags := cmd.Flags()
	fromEnv := func(name string) bool {
		v, ok := os.LookupEnv(envName(name))
		return ok && v != ""
	}
	set := func(name, value, source string) error {
		if err := flags.Set(name, value); err != nil {
			return usageError{fmt.Errorf("%s: %s: %w", source, name, err)}
		}
		return nil
	}
	explicit := map[string]bool{}
	s.sources = map[string]string{}
	flags.Visit(func(f *pflag.Flag) { explicit[f.Name], s.sources[f.Name] = true, "--"+f.Name })
	var err error
	flags.VisitAll(func(f *pflag.Flag) {
		if err == nil && !explicit[f.Name] && fromEnv(f.Name) {
			explicit[f.Name], s.sources[f.Name] = true, envName(f.Name)
			err = set(f.Name, os.Getenv(envName(f.Name)), "environment variable "+envName(f.Name))
		}
	})
	if err != nil {
		return err
	}
	found := s.findConfig(explicit["zot-config"])
	byHand := explicit["root"]
	for _, source := range []struct {
		path   string
		strict bool
	}{{s.config, true}, {s.zotConfig, false}} {
		if source.path == "" {
			continue
		}
		values, err := readConfig(source.path, source.strict, flags)
		if err != nil {
			return err
		}
		if found && source.strict && byHand && !sameDirectory(s.root, values.flags["root"].text) {
			// Another storage than that file's: its answers and its keys are elsewhere too.
			for _, name := range []string{"state", "cosign-dir", "notation-dir"} {
				delete(values.flags, name)
			}
			values.subPaths = nil
		}
		names := make([]string, 0, len(values.flags))
		for name := range values.flags {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			if explicit[name] || flags.Lookup(name) == nil { // or another command's
				continue
			}
			explicit[name] = true
			if err := set(name, values.flags[name].text, values.flags[name].at); err != nil {
				return err
			}
			s.sources[name] = values.flags[name].at
		}
		if s.subPaths == nil {
			s.subPaths = values.subPaths
		}
		s.webhooks = append(s.webhooks, values.webhooks...)
		if values.scopes != nil {
			s.scopes = values.scopes
		}
	}
	return s.check(needRoot)
}

// defaultConfig is the configuration file that is read without being named.
var defaultConfig = "/etc/trust-worker/config.yaml"

// findConfig settles which configuration file is read: the one that is named, none for
// the name "none", else the default one if it is there and zot's own file is not named
// instead. It reports whether it is the default one.
func (s *settings) findConfig(zots bool) (found bool) {
	switch {
	case s.config == "none":
		s.config = ""
	case s.config == "" && !zots:
		if _, err := os.Stat(defaultConfig); err == nil || !errors.Is(err, fs.ErrNotExist) {
			s.config = defaultConfig
			return true
		}
	}
	return false
}

// sameDirectory reports whether two names lead to one directory.
func sameDirectory(a, b string) bool {
	fa, errA := os.Stat(a)
	fb, errB := os.Stat(b)
	if errA != nil || errB != nil {
		absA, _ := filepath.Abs(a)
		absB, _ := filepath.Abs(b)
		return a != "" && b != "" && absA == absB
	}
	return os.SameFile(fa, fb)
}

func envName(flag string) string {
	return "TRUST_WORKER_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// check validates once, at the edge, and fills in what depends on the root.
func (s *settings) check(needRoot bool) error {
	// Whoever reads the answers where they are need not see the storage.
	needRoot = needRoot || s.state == "" && singleStateDirectory() == ""
	if source := mirror.Replica(s.state); s.root == "" && needRoot && source != "" {
		return usageError{fmt.Errorf("%s is a replica of %s: storage and trust directories are there; ask on that machine, or give --root DIR", s.state, source)}
	}
	if s.root == "" && needRoot {
		return usageError{errors.New("no storage root: give --root DIR (or --state DIR to read a cache), TRUST_WORKER_ROOT, or storage.rootDirectory in the configuration file")}
	}
	if s.root != "" {
		if fi, err := os.Stat(s.root); err != nil && needRoot {
			return fmt.Errorf("storage root: %w", err)
		} else if err == nil && !fi.IsDir() {
			return fmt.Errorf("storage root %s is not a directory", s.root)
		}
		abs, err := filepath.Abs(s.root)
		if err != nil {
			return err
		}
		s.root = abs
	}
	if s.state == "" {
		if s.state = singleStateDirectory(); s.state == "" {
			s.state = filepath.Join(s.root, "_trust")
		}
	}
	setIfEmpty(&s.cosignDir, filepath.Join(s.root, "_cosign"))
	setIfEmpty(&s.notationDir, filepath.Join(s.root, "_notation"))
	if s.lease <= 0 || s.scanInterval <= 0 {
		return usageError{errors.New("--lease and --scan-interval must be positive")}
	}
	for _, host := range s.registryNames {
		if !imageref.ValidHost(host) {
			return usageError{fmt.Errorf("%s: %.100q is not the host of a registry: write it without scheme, slash or path, such as registry.example or registry.example:5000",
				cmp.Or(s.sources["registry-name"], "--registry-name"), host)}
		}
	}
	if s.historyDays < 0 || s.historyDays > 36500 {
		return usageError{fmt.Errorf("--history-days %d: choose 0, to keep no history, or a number of days", s.historyDays)}
	}
	if s.workers < 0 {
		return usageError{fmt.Errorf("--workers %d: choose 0, one for each processor, or more", s.workers)}
	}
	if !slices.Contains(layout.Layouts, layout.Layout(s.layout)) {
		return usageError{fmt.Errorf("--layout %s: choose auto, oci or distribution", s.layout)}
	}
	switch s.revocation {
	case "online", "offline", "ignore":
	default:
		return usageError{fmt.Errorf("--revocation %s: choose online, offline or ignore", s.revocation)}
	}
	if _, err := s.logger(); err != nil {
		return err
	}
	return nil
}

func setIfEmpty(s *string, def string) {
	if *s == "" {
		*s = def
	}
}

// singleStateDirectory is systemd's STATE_DIRECTORY, if it names one.
func singleStateDirectory() string {
	d := os.Getenv("STATE_DIRECTORY")
	if strings.Contains(d, ":") {
		return ""
	}
	return d
}

func (s *settings) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.logLevel)); err != nil {
		return nil, usageError{fmt.Errorf("--log-level %s: choose debug, info, warn or error", s.logLevel)}
	}
	o := &slog.HandlerOptions{Level: level}
	switch s.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(inert.Writer{W: os.Stderr}, o)), nil
	}
	return nil, usageError{fmt.Errorf("--log-format %s: choose text or json", s.logFormat)}
}

// loader reads the trust directories, by what the trust memory says: the one that
// store has opened, or else the one in the state directory, which another process
// may own.
func (s *settings) loader(log *slog.Logger) (*truststore.Loader, error) {
	memory := s.memory
	if memory == nil {
		memory = truststore.ReadMemory(s.state, store.Exists(s.state))
	}
	if note := memory.Note(); note != "" && s.enable && s.notation {
		level := slog.LevelWarn
		if memory.Fresh() && s.memory != nil {
			level = slog.LevelInfo // as at every first start
		}
		log.Log(context.Background(), level, note)
	}
	scopes := s.scopes
	s.scopesFile = s.config
	if from := memory.Narrowing(); from != "" && s.memory == nil && s.scopes == nil && s.enable && s.cosign {
		if scopes, s.scopesFile = memory.Scopes(), from; len(scopes) > 0 {
			log.Info("judging by the trustWorker.scopes that were last in force; name the configuration with --config", "from", from)
		} else {
			log.Warn("judging without trustWorker.scopes, which may have narrowed who may sign; name the configuration with --config", "from", from)
		}
	}
	return truststore.NewLoader(truststore.Config{
		Scopes:    scopes,
		CosignDir: s.cosignDir, NotationDir: s.notationDir, RegistryNames: s.registryNames,
		CosignExpected: s.sources["cosign-dir"] != "", NotationExpected: s.sources["notation-dir"] != "",
		Cosign: s.enable && s.cosign, Notation: s.enable && s.notation,
		Revocation: truststore.RevocationMode(s.revocation),
		ZotPolicy:  s.zotPolicy || s.zotConfig != "", Memory: memory,
	})
}

// revocationChecker is who asks about revoked certificates, nil if nobody is to.
func (s *settings) revocationChecker(log *slog.Logger) *revocation.Checker {
	if truststore.RevocationMode(s.revocation) != truststore.RevocationOnline {
		return nil
	}
	return revocation.New(revocation.Options{Log: log})
}

// storage opens every root: the main one, and zot's subPaths.
func (s *settings) storage() (roots []scheduler.Storage, closeAll func(), err error) {
	closeAll = func() {
		for _, r := range roots {
			r.Root.Close() // read-only
		}
	}
	open := func(dir, prefix string, form layout.Layout) error {
		root, err := layout.Open(dir, layout.Options{Prefix: prefix, Layout: form})
		if err != nil {
			return err
		}
		roots = append(roots, scheduler.Storage{Root: root, Dir: dir, Prefix: prefix})
		return nil
	}
	if err := open(s.root, "", layout.Layout(s.layout)); err != nil {
		return nil, nil, err
	}
	routes := make([]string, 0, len(s.subPaths))
	for route := range s.subPaths {
		routes = append(routes, route)
	}
	sort.Strings(routes)
	for _, route := range routes {
		if err := open(s.subPaths[route], route, layout.OCI); err != nil {
			closeAll()
			return nil, nil, err
		}
	}
	return roots, closeAll, nil
}

// store opens the cache for writing, and the trust memory beside it.
func (s *settings) store(log *slog.Logger, lease time.Duration) (*store.Store, error) {
	store, err := store.Open(s.state, store.Options{Lease: lease, MaxFiled: s.maxFiled, Log: log, Anew: s.anew, Begin: func() error {
		memory, err := truststore.OpenMemory(s.state, store.Exists(s.state), s.memory)
		if err != nil {
			return err
		}
		s.memory = memory
		if s.publishedNarrowed() {
			memory.NarrowedOnce()
		}
		return s.narrow(s.scopes, log)
	}})
	s.anew = s.anew && err != nil // once
	if errors.Is(err, fs.ErrPermission) {
		return nil, &writeDenied{err}
	}
	return store, err
}

// reconfigure reads again what HUP may change of the configuration: trustWorker.scopes.
// One that cannot be used changes nothing.
func (s *settings) reconfigure(loader *truststore.Loader, log *slog.Logger) error {
	var scopes []trust.Narrowing
	if s.config != "" {
		values, err := readConfig(s.config, true, pflag.NewFlagSet("", pflag.ContinueOnError))
		if err != nil {
			return err
		}
		scopes = values.scopes
	}
	if err := s.narrow(scopes, log); err != nil {
		return err
	}
	s.scopes = scopes // for what begins anew
	loader.SetScopes(scopes)
	return nil
}

// onStore opens the cache for f. Damage that f meets is set aside at the next
// opening.
func (s *settings) onStore(log *slog.Logger, lease time.Duration, f func(*store.Store) error) (err error) {
	store, err := s.store(log, lease)
	if err != nil {
		return err
	}
	defer func() {
		if errors.Is(err, cache.ErrDamaged) {
			err = errors.Join(err, store.MarkDamaged(err))
		}
		if !errors.Is(err, errStuck) {
			err = errors.Join(err, store.Close())
		}
	}()
	return f(store)
}

// scheduler builds a scheduler on an open store.
func (s *settings) scheduler(store *store.Store, roots []scheduler.Storage, loader *truststore.Loader, log *slog.Logger) scheduler.Config {
	return scheduler.Config{Storage: roots, Loader: loader, Store: store, Workers: s.workers,
		ScanInterval: s.scanInterval, SlowInterval: s.slowInterval, Log: log, Revocation: s.revocationChecker(log),
		ConfirmInterval: min(10*time.Second, max(s.lease/3, 100*time.Millisecond))}
}
