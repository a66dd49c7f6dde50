package page

import (
	"trust-worker/preview"
	"trust-worker/trust"
)

// Preview is the page of what a removal would cost.
type Preview struct {
	What   string // the file or fingerprint that would go
	Answer *preview.Answer
}

// costs is the body of the page.
type costs struct {
	What, Generation Text
	ToVerify         int
	Warnings         []Text
	Lost, Kept       costList
}

// Lists are those with images in them, what is lost first.
func (c *costs) Lists() []costList { return []costList{c.Lost, c.Kept} }

type costList struct {
	Title, Who string
	N, More    int
	Images     []costImage
}

type costImage struct {
	Name    Text
	URL     string
	State   state
	Signers []Text
}

// Preview renders the page.
func (p *Pages) Preview(v Preview) ([]byte, error) {
	a := v.Answer
	body := &costs{What: Text(v.What), Generation: Text(a.Generation), ToVerify: a.ToVerify,
		Lost: costListOf("Lost", "Trusted until now by", a.Counts.Lost, a.Lost, func(i *preview.Image) []string { return i.Signers }),
		Kept: costListOf("Kept", "Kept by", a.Counts.Kept, a.Kept, func(i *preview.Image) []string { return i.By })}
	for _, w := range a.Warnings {
		body.Warnings = append(body.Warnings, Text(w.Path+" "+w.Reason))
	}
	return p.render("preview.html", frame{Title: Text("If " + v.What + " were removed"), Tab: "trust", Body: body})
}

func costListOf(title, who string, n int, images []preview.Image, signers func(*preview.Image) []string) costList {
	l := costList{Title: title, Who: who, N: n, More: n - len(images)}
	for i := range images {
		img := &images[i]
		name := img.RepoName + ":" + img.Tag
		if img.Tag == "" {
			name = img.RepoName + "@" + short(img.Digest)
		}
		one := costImage{Name: Text(name), URL: imageURL(img.RepoName, "", img.Digest.String()), State: stateOfStatus(trust.Status(img.State))}
		for _, s := range signers(img) {
			one.Signers = append(one.Signers, Text(s))
		}
		l.Images = append(l.Images, one)
	}
	return l
}
