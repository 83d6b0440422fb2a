// Go's apns2: goroutines that share one client, which multiplexes over HTTP/2.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/payload"
	"github.com/sideshow/apns2/token"
	"golang.org/x/net/http2"
)

const atOnce = 500

type job struct {
	Info struct {
		URL     string `json:"url"`
		CAFile  string `json:"ca_file"`
		KeyFile string `json:"key_file"`
		KeyID   string `json:"key_id"`
		TeamID  string `json:"team_id"`
		Topic   string `json:"topic"`
	} `json:"info"`
	TokensFile string            `json:"tokens_file"`
	Seconds    float64           `json:"seconds"`
	Title      string            `json:"title"`
	Body       string            `json:"body"`
	Data       map[string]string `json:"data"`
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func newClient(given job) *apns2.Client {
	key := must(token.AuthKeyFromFile(given.Info.KeyFile))
	client := apns2.NewTokenClient(&token.Token{AuthKey: key, KeyID: given.Info.KeyID, TeamID: given.Info.TeamID})
	client.Host = given.Info.URL
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(must(os.ReadFile(given.Info.CAFile)))
	client.HTTPClient.Transport.(*http2.Transport).TLSClientConfig = &tls.Config{RootCAs: authorities}
	return client
}

func main() {
	var given job
	if err := json.Unmarshal(must(os.ReadFile(os.Args[1])), &given); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	tokens := strings.Fields(string(must(os.ReadFile(given.TokensFile))))
	client := newClient(given)
	send := func(to string) bool {
		content := payload.NewPayload().AlertTitle(given.Title).AlertBody(given.Body)
		for name, value := range given.Data {
			content.Custom(name, value)
		}
		notification := &apns2.Notification{
			DeviceToken: to, Topic: given.Info.Topic, PushType: apns2.PushTypeAlert, Payload: content,
		}
		answer, err := client.Push(notification)
		return err == nil && answer.Sent()
	}
	if !send(tokens[0]) {
		fmt.Fprintln(os.Stderr, "apns2's push was not accepted")
		os.Exit(1)
	}
	began, spent := time.Now(), cpuSeconds()
	var next, accepted atomic.Int64
	var done sync.WaitGroup
	for range atOnce {
		done.Add(1)
		go func() {
			defer done.Done()
			for time.Since(began).Seconds() < given.Seconds {
				place := next.Add(1) - 1
				if place >= int64(len(tokens)) {
					return
				}
				if send(tokens[place]) {
					accepted.Add(1)
				}
			}
		}()
	}
	done.Wait()
	fmt.Printf("{\"accepted\": %d, \"seconds\": %f, \"cpu_seconds\": %f}\n",
		accepted.Load(), time.Since(began).Seconds(), cpuSeconds()-spent)
}
