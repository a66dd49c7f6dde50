//go:build !linux

package layout

func openBeneath(dir int, path string, flags int) (int, error) { return openInSteps(dir, path, flags) }
