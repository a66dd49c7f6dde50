package server

import (
	"net/url"
	"testing"
)

// References as pod specs write them, over REST, at the gate and in GraphQL.
func TestReferences(t *testing.T) {
	w := start(t, func(c *Config) { c.RegistryNames = []string{"r.example:5000"} })
	w.image("team/app", "1.0")
	w.image("docker.io/team/other", "1.0")
	d, other := digestOf("team/app:1.0").String(), digestOf("docker.io/team/other:1.0").String()
	for name, found := range map[string]string{
		"team/app:1.0@" + d:                   "team/app",
		"team/app:gone@" + d:                  "team/app",
		"r.example:5000/team/app:1.0@" + d:    "team/app",
		"r.example:5000/team/app@" + d:        "team/app",
		"docker.io/team/other:1.0@" + other:   "docker.io/team/other",
		"docker.io/team/app:1.0@" + d:         "",
		"r.example/team/app:1.0@" + d:         "",
		"r.example:5000/team/other@" + other:  "",
		"r.example:5000/docker.io/team/app@x": "",
	} {
		images, check := w.get(pathAPI+"/images/"+name), w.get(pathAPI+"/check/"+name)
		graph := w.get(pathSearch + "?query=" + url.QueryEscape(`{Image(image:"`+name+`"){RepoName}}`))
		if found == "" {
			if images.StatusCode/100 != 4 || images.StatusCode != check.StatusCode {
				t.Errorf("%s: %d %s, %d %s", name, images.StatusCode, images.body, check.StatusCode, check.body)
			}
			graph.want(t, 200, `"errors":[`)
			continue
		}
		images.want(t, 200, `"RepoName":"`+found+`"`)
		check.want(t, 403, `"RepoName":"`+found+`"`, `"State":"unsigned"`)
		graph.want(t, 200, `"RepoName":"`+found+`"`)
	}
	w.get(pathAPI+"/images/docker.io/team/app:1.0").want(t, 404, "--registry-name docker.io", "this storage is known as r.example:5000")
	w.get(pathAPI+"/check/docker.io/team/app@"+d).want(t, 404, "--registry-name docker.io")
}
