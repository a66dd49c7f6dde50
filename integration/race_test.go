//go:build race

package integration

// raceDetector: the test has it, so the binary gets it too.
const raceDetector = true
