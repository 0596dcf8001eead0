// The command flagd evaluates flags with flagd's own engine, as a peer of the filter in tests and benchmarks.
//
// Evaluator, store, file sync and metrics are those of github.com/open-feature/flagd/core. flagd's server
// (github.com/open-feature/flagd/flagd) is in no registry, so its OFREP side is written anew here, after release 0.16.1: the same
// router, CORS, tracing, request IDs and measurements around the same calls of the engine.
//
//	flagd lines
//	flagd serve --port PORT --file PATH [--file PATH …]
//
// The mode lines reads one JSON line for each question, and prints one for its answer, in the same order:
//
//	{"documents":[{"source":"a.json","document":{…}},…]}      from now on these are evaluated, a later one wins
//	                                                          {"refused":{"a.json":"why",…}}
//	{"ask":[{"key":"a"?,"selector":"…"?,"context":{…}?},…]}   a flag each, or all of them where there is no key
//	                                                          {"answers":[{"status":200,"body":{…}},…]}
//
// A document may also be a text. Without `context` a question has no body.
//
// The mode serve answers OFREP on 127.0.0.1, follows the files, and has flagd's metrics at /metrics. It prints "ready" when it
// listens and each file was read. SIGTERM and SIGINT end it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// The names under which flagd reports.
const (
	serviceName    = "flagd"
	serviceVersion = "0.16.1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	usage := errors.New("usage: flagd lines | flagd serve --port PORT --file PATH [--file PATH …]")
	if len(arguments) == 0 {
		return usage
	}
	switch mode, rest := arguments[0], arguments[1:]; {
	case mode == "lines" && len(rest) == 0:
		return lines(os.Stdin, os.Stdout)
	case mode == "serve":
		options := flag.NewFlagSet("flagd serve", flag.ContinueOnError)
		port := options.Uint("port", 8016, "where OFREP is answered")
		var files paths
		options.Var(&files, "file", "a document to follow; may be repeated, a later one wins")
		if err := options.Parse(rest); err != nil {
			return err
		}
		if len(files) == 0 || options.NArg() > 0 || *port > 65535 {
			return usage
		}
		return serve(ctx, uint16(*port), files)
	}
	return usage
}

// The values of an option that may be repeated.
type paths []string

func (p *paths) String() string { return strings.Join(*p, " ") }

func (p *paths) Set(path string) error {
	*p = append(*p, path)
	return nil
}
