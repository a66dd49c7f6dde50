//go:build race

package cluster

// raceDetector: the test has it, so the binary gets it too.
const raceDetector = true
