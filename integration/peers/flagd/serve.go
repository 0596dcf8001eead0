package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/open-feature/flagd/core/pkg/evaluator"
	"github.com/open-feature/flagd/core/pkg/logger"
	"github.com/open-feature/flagd/core/pkg/store"
	"github.com/open-feature/flagd/core/pkg/sync"
	"github.com/open-feature/flagd/core/pkg/sync/file"
	"github.com/open-feature/flagd/core/pkg/telemetry"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap/zapcore"
)

// serve answers OFREP on 127.0.0.1 with the flags of these files until the context ends.
func serve(ctx context.Context, port uint16, files []string) error {
	// As flagd logs by default: without what concerns single requests.
	lines, err := logger.NewZapLogger(zapcore.InfoLevel, "console")
	if err != nil {
		return err
	}
	log := logger.NewLogger(lines, false)
	telemetry.RegisterErrorHandling(log)
	recorder, err := telemetry.BuildMetricsRecorder(ctx, serviceName, serviceVersion, telemetry.Config{})
	if err != nil {
		return err
	}
	flags, err := store.NewStore(log, files)
	if err != nil {
		return err
	}
	engine := evaluator.NewJSON(log, flags)
	if err := follow(ctx, files, engine, log); err != nil {
		return err
	}

	evaluation, metrics := newHandler(engine, recorder), promhttp.Handler()
	routes := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			metrics.ServeHTTP(w, r)
			return
		}
		evaluation.ServeHTTP(w, r)
	})
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	server := http.Server{Handler: routes, ReadHeaderTimeout: 3 * time.Second, ReadTimeout: 5 * time.Second}
	ended := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer ended()
	fmt.Fprintln(os.Stdout, "ready")
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// follow puts into the engine what the files say and, while the context lasts, will say. It returns when each was read.
func follow(ctx context.Context, files []string, engine evaluator.IEvaluator, log *logger.Logger) error {
	said := make(chan sync.DataSync, len(files))
	for _, path := range files {
		source := file.NewFileSync(path, file.FSNOTIFY, 0, log)
		if err := source.Init(ctx); err != nil {
			return err
		}
		go func() {
			if err := source.Sync(ctx, said); err != nil {
				log.Error(err.Error())
			}
		}()
	}
	first := make(chan struct{}, len(files))
	go func() {
		read := map[string]bool{}
		for {
			select {
			case <-ctx.Done():
				return
			case data := <-said:
				if err := engine.SetState(data); err != nil {
					log.Error("error setting state: " + err.Error())
				}
				if !read[data.Source] {
					read[data.Source] = true
					first <- struct{}{}
				}
			}
		}
	}()
	for range files {
		select {
		case <-first:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
