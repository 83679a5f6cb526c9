// One static program for the containers of node tests: the sandbox, a server, a client, an eater of memory.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const account = "/var/run/secrets/kubernetes.io/serviceaccount/"

func main() {
	command, rest := "pause", []string{}
	if len(os.Args) > 1 {
		command, rest = os.Args[1], os.Args[2:]
	}
	switch command {
	case "pause": // what a sandbox runs: holds the namespaces, reaps orphans
		pause()
	case "serve": // port 8080: `/` names the pod, `/ready` answers 200 while the file exists
		serve(rest[0])
	case "write": // FILE TEXT, then pause
		check(os.WriteFile(rest[0], []byte(rest[1]), 0o644))
		pause()
	case "touch":
		check(os.WriteFile(rest[0], nil, 0o644))
	case "cat":
		show(os.ReadFile(rest[0]))
	case "remove":
		check(os.Remove(rest[0]))
	case "get": // URL
		fetch(&http.Client{Timeout: 3 * time.Second}, rest[0], "")
	case "api": // PATH of the API server, by the Service's address, as the pod's own account
		askAPI(rest[0])
	case "eat": // memory, until the kernel objects
		eat()
	default:
		check(fmt.Errorf("no command %s", command))
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func show(bytes []byte, err error) {
	check(err)
	os.Stdout.Write(bytes)
}

func pause() {
	stop, child := make(chan os.Signal, 1), make(chan os.Signal, 8)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	signal.Notify(child, syscall.SIGCHLD)
	for {
		select {
		case <-stop:
			return
		case <-child:
			for {
				if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
					break
				}
			}
		}
	}
}

func serve(ready string) {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() { <-stop; os.Exit(0) }()
	host, _ := os.Hostname()
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, host) })
	http.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat(ready); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	check(http.ListenAndServe(":8080", nil))
}

func fetch(client *http.Client, url, token string) {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	check(err)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := client.Do(request)
	check(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	check(err)
	fmt.Printf("%d %s", answer.StatusCode, body)
}

func askAPI(path string) {
	token, err := os.ReadFile(account + "token")
	check(err)
	pem, err := os.ReadFile(account + "ca.crt")
	check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	client := &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}},
	}
	server := os.Getenv("KUBERNETES_SERVICE_HOST") + ":" + os.Getenv("KUBERNETES_SERVICE_PORT")
	fetch(client, "https://"+server+path, string(token))
}

func eat() {
	var eaten [][]byte
	for {
		block := make([]byte, 1<<20)
		for i := range block {
			block[i] = 1
		}
		eaten = append(eaten, block)
		time.Sleep(time.Millisecond)
	}
}
