package cluster

import (
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
)

// Lines as Linux writes them to /proc/self/mountinfo.
func TestMountProblem(t *testing.T) {
	const root = "25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
	nfs := func(options string) string {
		return root + "90 25 0:50 / /srv/registry rw,relatime shared:40 - nfs4 files.example:/registry rw,vers=4.2,rsize=1048576,hard,proto=tcp," + options + "\n"
	}
	for _, c := range []struct{ name, info, dir, want string }{
		{"a local file system", root, "/srv/registry", ""},
		{"NFS as it is mounted without options", nfs("timeo=600,addr=10.0.0.1"), "/srv/registry/_cosign", "up to 60 s: a change may be seen that late; mount it with lookupcache=none,actimeo=1"},
		{"with the options", nfs("acregmin=1,acregmax=1,acdirmin=1,acdirmax=1,lookupcache=none"), "/srv/registry", ""},
		{"only directories", nfs("acdirmin=1,acdirmax=1"), "/srv/registry", "up to 60 s"},
		{"longer than a second", nfs("acregmin=3,acregmax=3,acdirmin=3,acdirmax=3"), "/srv/registry", "up to 3 s"},
		{"without attribute caches", nfs("noac"), "/srv/registry", ""},
		{"not below it", nfs(""), "/srv/registry2", ""},
		{"a local one within", nfs("") + "91 90 8:2 / /srv/registry/_cosign rw - tmpfs tmpfs rw\n", "/srv/registry/_cosign", ""},
		{"SMB", root + "90 25 0:50 / /srv rw - cifs //files/registry rw,actimeo=30\n", "/srv", "up to 30 s: a change may be seen that late; mount it with actimeo=1"},
		{"SMB as it is mounted without options", root + "90 25 0:50 / /srv rw - cifs //files/registry rw,actimeo=1\n", "/srv", ""},
	} {
		mounts, err := mountinfo.GetMountsFromReader(strings.NewReader(c.info), mountinfo.ParentsFilter(c.dir))
		if err != nil {
			t.Fatal(err)
		}
		if got := mountProblem(c.dir, mounts); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if p := MountProblem(t.TempDir()); p != "" {
		t.Logf("here: %s", p)
	}
}
