package cluster

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"trust-worker/trust"
)

// three are the turns of a, among a, b and c; names are repositories by who comes first and
// second.
func three(t *testing.T) (turns *turns, say func(node string, edit func(*Member)), repository func(first, second string) string) {
	t.Helper()
	beats := map[string]uint64{}
	turns = newTurns("a")
	say = func(node string, edit func(*Member)) {
		beats[node]++
		m := Member{Node: node, Boot: 1, Beat: beats[node]}
		if edit != nil {
			edit(&m)
		}
		turns.hear(m)
	}
	repository = func(first, second string) string {
		for n := 0; ; n++ {
			name := fmt.Sprint("team/app", n)
			order := map[string]string{}
			for _, of := range [][3]string{{"a", "b", "c"}, {"a", "c", "b"}, {"b", "a", "c"}, {"b", "c", "a"}, {"c", "a", "b"}, {"c", "b", "a"}} {
				if string(weight(of[0], name)) > string(weight(of[1], name)) && string(weight(of[1], name)) > string(weight(of[2], name)) {
					order["first"], order["second"] = of[0], of[1]
				}
			}
			if order["first"] == first && order["second"] == second {
				return name
			}
		}
	}
	return turns, say, repository
}

func TestWhoseTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns, say, repository := three(t)
		first, second, last := repository("a", "b"), repository("b", "a"), repository("b", "c")
		check := func(when string, name string, hurry bool, since time.Duration, want time.Duration) {
			t.Helper()
			if got := turns.wait(name, time.Now().Add(-since), hurry); got != want {
				t.Errorf("%s: wait %v, want %v", when, got, want)
			}
		}
		check("alone", last, true, 0, 0)
		say("b", nil)
		say("c", nil)
		check("the first", first, true, 0, 0)
		check("the second", second, true, 0, turnDelay)
		check("the last", last, true, 0, 2*turnDelay)
		check("the last, later", last, true, turnDelay, turnDelay)
		check("the last, over", last, true, 2*turnDelay, 0)
		check("nobody hurries, nobody is at work", last, false, 2*turnDelay, 0)

		time.Sleep(memberTime - heartbeat)
		say("c", nil)
		time.Sleep(heartbeat) // b has not been heard for memberTime
		check("b is gone", second, true, 0, 0)
		check("b is gone, c is before", last, true, 0, turnDelay)
		say("b", func(m *Member) { m.Epoch = 2 })
		check("b verifies by other rules", second, true, 0, 0)
		say("b", func(m *Member) { m.TrustStore = trust.SumOf(nil) })
		check("b trusts others", second, true, 0, 0)
		say("b", nil)
		check("b is back", second, true, 0, turnDelay)
	})
}

// What nobody hurries for waits while one who comes first is at work on what it has owed for
// as long, and no longer.
func TestAtWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns, say, repository := three(t)
		name := repository("b", "a")
		start := time.Now()
		done := int64(0)
		beat := func(owed time.Duration, works bool) {
			if works {
				done++
			}
			say("b", func(m *Member) { m.Owed, m.Done = owed, done })
			time.Sleep(heartbeat)
		}
		for range 10 { // five seconds
			beat(time.Since(start)+time.Millisecond, true)
		}
		if got := turns.wait(name, start, false); got != look {
			t.Errorf("b is at work: wait %v", got)
		}
		if got := turns.wait(name, start, true); got != 0 {
			t.Errorf("somebody hurries: wait %v", got)
		}
		beat(time.Second, true)
		if got := turns.wait(name, start, false); got != 0 {
			t.Errorf("b has done what was owed for so long: wait %v", got)
		}
		again := time.Now()
		for time.Since(again) <= stuckTime {
			beat(time.Since(again)+time.Millisecond, false)
		}
		if got := turns.wait(name, again, false); got != 0 {
			t.Errorf("b is stuck: wait %v", got)
		}
		for time.Since(start) <= maxWait {
			beat(time.Since(start)+time.Millisecond, true)
		}
		if got := turns.wait(name, start, false); got != 0 {
			t.Errorf("for too long: wait %v", got)
		}
	})
}

// A message that somebody has kept keeps no member alive that is gone.
func TestKeptHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns, _, repository := three(t)
		name := repository("b", "a")
		turns.hear(Member{Node: "b", Boot: 1, Beat: 5})
		turns.hear(Member{Node: "b", Boot: 2, Beat: 1}) // it has begun anew
		time.Sleep(memberTime)
		for _, m := range []Member{{Node: "b", Boot: 1, Beat: 5}, {Node: "b", Boot: 1, Beat: 4}, {Node: "b", Boot: 2, Beat: 1}, {Node: "a", Boot: 3}} {
			turns.hear(m)
			if turns.rank(name) != 0 {
				t.Errorf("%+v is heard", m)
			}
		}
		time.Sleep(time.Hour)
		turns.hear(Member{Node: "b", Boot: 2, Beat: 1})
		if turns.rank(name) != 0 {
			t.Error("an hour later it is heard")
		}
		turns.hear(Member{Node: "b", Boot: 2, Beat: 2})
		if turns.rank(name) != 1 {
			t.Error("b is not heard")
		}
		// One who has had another of its name beside it, and is alone again.
		time.Sleep(memberTime)
		turns.hear(Member{Node: "b", Boot: 3, Beat: 1})
		time.Sleep(memberTime)
		turns.hear(Member{Node: "b", Boot: 2, Beat: 3})
		if turns.rank(name) != 1 {
			t.Error("b is not heard once its twin is gone")
		}
	})
}

// Each repository has one who comes first, and each member about as many.
func TestShares(t *testing.T) {
	all := map[string]*turns{}
	for _, node := range []string{"a", "b", "c"} {
		all[node] = newTurns(node)
		for _, other := range []string{"a", "b", "c"} {
			all[node].hear(Member{Node: other, Boot: 1, Beat: 1})
		}
	}
	first := map[string]int{}
	for n := range 3000 {
		ranks := map[int]bool{}
		for node, turns := range all {
			r := turns.rank(fmt.Sprint("team/app", n))
			ranks[r] = true
			if r == 0 {
				first[node]++
			}
		}
		if len(ranks) != 3 {
			t.Fatalf("ranks %v", ranks)
		}
	}
	for node, n := range first {
		if n < 850 || n > 1150 {
			t.Errorf("%s is first for %d of 3000", node, n)
		}
	}
}

// A flood of members is not remembered.
func TestManyMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns("a")
		for n := range 10 * maxMembers {
			turns.hear(Member{Node: fmt.Sprint(n), Boot: 1, Beat: 1})
		}
		if len(turns.members) != maxMembers {
			t.Errorf("%d are remembered", len(turns.members))
		}
		if turns.hear(Member{Node: "b", Boot: 1, Beat: 1}); turns.members["b"] != nil {
			t.Error("one more takes the place of one that is there")
		}
		time.Sleep(memberTime + 1)
		if turns.hear(Member{Node: "b", Boot: 1, Beat: 1}); turns.members["b"] == nil || len(turns.members) != maxMembers {
			t.Errorf("%d are remembered", len(turns.members))
		}
		if time.Sleep(2 * shownTime); len(turns.status()) != 0 {
			t.Errorf("shown: %v", turns.status())
		}
	})
}

// Two workers of one name find out, and one that has begun anew is no twin of itself.
func TestTwin(t *testing.T) {
	turns := newTurns("a")
	for n := range uint64(10) {
		if turns.twin(Member{Node: "a", Boot: 1, Beat: 1}, 3) {
			t.Fatal("what is kept makes a twin")
		}
		if turns.twin(Member{Node: "a", Boot: 2 + n, Beat: 1}, 3) {
			t.Fatal("processes one after the other make a twin")
		}
	}
	is := false
	for n := range uint64(3) {
		is = turns.twin(Member{Node: "a", Boot: 100, Beat: 1 + n}, 3)
	}
	if !is {
		t.Error("a twin is not found")
	}
}
