// Starts payments over HTTP and waits for their ends, for a fraction of the CPU that a client in Python would take
// from what is measured.
//
// Each line of its standard input asks for one measurement, each line of its output answers one, as the Python
// clients do: see workers/measuring.py.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"sync"
	"syscall"
	"time"
)

const requestTimeout = 120 * time.Second

// After the ramp; if the time that counts has not begun then, nothing counts.
const mostRamp = 60 * time.Second

type ask struct {
	Do      string  `json:"do"` // closed: so many in flight; single: so many, one after the other
	Amount  int     `json:"amount"`
	Ramp    float64 `json:"ramp"`    // of closed: seconds before those that count
	Seconds float64 `json:"seconds"` // of closed
}

type answer struct {
	Rate    float64        `json:"rate"`
	Ends    map[string]int `json:"ends"`
	Missing int            `json:"missing"`
	P50     float64        `json:"p50_ms"`
	P99     float64        `json:"p99_ms"`
	CPU     float64        `json:"cpu_s"`
}

// One measurement: what is still to be started, and what has ended.
type measurement struct {
	mutex     sync.Mutex
	begun     time.Time
	ramp      time.Time // until then nothing counts, nor until as many have ended as are in flight; zero: that's over
	until     time.Time // nothing starts later, and what ends later has no part in rate and latencies
	seconds   float64   // that count
	inFlight  int
	left      int // still to be started
	ended     int
	latencies []float64
	last      time.Time
	ends      map[string]int
	missing   int
}

func (m *measurement) begin() (time.Time, bool) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.left--
	now := time.Now()
	return now, m.left >= 0 && now.Before(m.until)
}

func (m *measurement) done(at time.Time, status string, err error) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		m.missing++
		return
	}
	m.ends[status]++
	m.ended++
	now := time.Now()
	if !m.ramp.IsZero() {
		if now.After(m.ramp) && m.ended >= m.inFlight {
			m.ramp, m.until = time.Time{}, now.Add(time.Duration(m.seconds*1e9))
		}
	} else if now.Before(m.until) {
		m.latencies = append(m.latencies, now.Sub(at).Seconds()*1000)
		m.last = now
	}
}

func (m *measurement) quantile(share float64) float64 {
	if len(m.latencies) == 0 {
		return 0
	}
	return m.latencies[min(int(float64(len(m.latencies))*share), len(m.latencies)-1)]
}

type client struct {
	http   *http.Client
	url    string
	prefix string
	mutex  sync.Mutex
	orders int
}

func (c *client) order() string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.orders++
	return fmt.Sprintf("%s-%d", c.prefix, c.orders)
}

// Gives how the payment ended.
func (c *client) pay() (string, error) {
	body, err := json.Marshal(map[string]any{"order_id": c.order(), "amount": 1999, "sku": "book"})
	if err != nil {
		return "", err
	}
	response, err := c.http.Post(c.url, "application/json", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return "", err
	}
	var said struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(text, &said); err != nil || response.StatusCode != http.StatusOK || said.Status == "" {
		return "", fmt.Errorf("%s: %s", response.Status, text)
	}
	return said.Status, nil
}

func (c *client) measure(a ask) answer {
	m := &measurement{begun: time.Now(), ends: map[string]int{}, inFlight: 1, seconds: a.Seconds}
	if a.Do == "closed" {
		m.inFlight, m.left = a.Amount, int(^uint(0)>>1)
		m.ramp = m.begun.Add(time.Duration(a.Ramp * 1e9))
		m.until = m.ramp.Add(mostRamp)
	} else {
		m.left, m.until = a.Amount, m.begun.Add(24*time.Hour)
	}
	before := cpu()
	var all sync.WaitGroup
	for range make([]struct{}, m.inFlight) {
		all.Add(1)
		go func() {
			defer all.Done()
			for {
				at, more := m.begin()
				if !more {
					return
				}
				status, err := c.pay()
				m.done(at, status, err)
			}
		}()
	}
	all.Wait()
	took := a.Seconds
	if a.Do != "closed" {
		took = m.last.Sub(m.begun).Seconds()
	}
	sort.Float64s(m.latencies)
	return answer{float64(len(m.latencies)) / took, m.ends, m.missing, m.quantile(0.5), m.quantile(0.99), cpu() - before}
}

func cpu() float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
}

func main() {
	url := flag.String("url", "", "where payments are posted")
	connections := flag.Int("connections", 1024, "at most")
	flag.Parse()
	c := &client{url: *url, prefix: fmt.Sprint(time.Now().UnixNano()), http: &http.Client{Timeout: requestTimeout,
		Transport: &http.Transport{MaxIdleConns: *connections, MaxIdleConnsPerHost: *connections, MaxConnsPerHost: *connections}}}
	asks := make(chan []byte)
	go func() { // when the input ends, so does this process, whatever it is about
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			asks <- bytes.Clone(lines.Bytes())
		}
		os.Exit(0)
	}()
	out := json.NewEncoder(os.Stdout)
	for line := range asks {
		var a ask
		if err := json.Unmarshal(line, &a); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		if err := out.Encode(c.measure(a)); err != nil {
			os.Exit(1)
		}
	}
}
