package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/gorilla/mux"
	"github.com/open-feature/flagd/core/pkg/evaluator"
	"github.com/open-feature/flagd/core/pkg/model"
	"github.com/open-feature/flagd/core/pkg/service/ofrep"
	"github.com/open-feature/flagd/core/pkg/store"
	"github.com/open-feature/flagd/core/pkg/telemetry"
	"github.com/rs/cors"
	"github.com/rs/xid"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

const (
	singleRoute = "/ofrep/v1/evaluate/flags/{key}"
	bulkRoute   = "/ofrep/v1/evaluate/{path:flags\\/|flags}"
	// flagd's default of --max-request-body.
	maxBody = 1_000_000
)

// evaluation answers OFREP's requests.
type evaluation struct {
	engine   evaluator.IEvaluator
	recorder telemetry.IMetricsRecorder
}

// newHandler returns what answers OFREP, with all that flagd has around it.
func newHandler(engine evaluator.IEvaluator, recorder telemetry.IMetricsRecorder) http.Handler {
	e := evaluation{engine, recorder}
	router := mux.NewRouter()
	router.Handle(singleRoute, e.measured(singleRoute, e.single)).Methods(http.MethodPost)
	router.Handle(bulkRoute, e.measured(bulkRoute, e.bulk)).Methods(http.MethodPost)
	bounded := http.MaxBytesHandler(otelhttp.NewHandler(router, "flagd.ofrep"), maxBody)
	return cors.New(cors.Options{
		AllowedMethods: []string{
			http.MethodHead, http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		},
		AllowedHeaders: []string{"*"},
		ExposedHeaders: []string{
			"Accept", "Accept-Encoding", "Accept-Post", "Connect-Accept-Encoding", "Connect-Content-Encoding",
			"Content-Encoding", "Grpc-Accept-Encoding", "Grpc-Encoding", "Grpc-Message", "Grpc-Status",
			"Grpc-Status-Details-Bin",
		},
	}).Handler(bounded)
}

// single evaluates the flag of the path.
func (e evaluation) single(w http.ResponseWriter, r *http.Request) {
	key := mux.Vars(r)["key"]
	requestID := xid.New().String()
	values, err := contextOf(r)
	if err != nil {
		refuse(w, err, ofrep.ContextErrorResponseFrom(key))
		return
	}
	ctx, err := selected(r)
	if err != nil {
		write(w, http.StatusBadRequest, ofrep.EvaluationError{
			Key: key, ErrorCode: model.GeneralErrorCode, ErrorDetails: "invalid selector: " + err.Error(),
		})
		return
	}
	found := e.engine.ResolveAsAnyValue(ctx, requestID, key, values)
	if found.Error != nil {
		status, body := ofrep.EvaluationErrorResponseFrom(found)
		write(w, status, body)
		return
	}
	write(w, http.StatusOK, ofrep.SuccessResponseFrom(found))
}

// bulk evaluates all flags of the selection.
func (e evaluation) bulk(w http.ResponseWriter, r *http.Request) {
	requestID := xid.New().String()
	values, err := contextOf(r)
	if err != nil {
		refuse(w, err, ofrep.BulkEvaluationContextError())
		return
	}
	ctx, err := selected(r)
	if err != nil {
		write(w, http.StatusBadRequest,
			ofrep.BulkEvaluationContextErrorFrom(model.GeneralErrorCode, "invalid selector: "+err.Error()))
		return
	}
	found, metadata, err := e.engine.ResolveAllValues(ctx, requestID, values)
	if err != nil {
		write(w, http.StatusInternalServerError, ofrep.BulkEvaluationContextErrorFrom(
			model.GeneralErrorCode, "Bulk evaluation failed. Tracking ID: "+requestID))
		return
	}
	write(w, http.StatusOK, ofrep.BulkEvaluationResponseFrom(found, metadata))
}

// contextOf reads the first JSON value of a body, which need not be there. What is no object is no context.
func contextOf(r *http.Request) (map[string]any, error) {
	var body ofrep.Request
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	values, isObject := body.Context.(map[string]any)
	if !isObject {
		values = map[string]any{}
	}
	return values, nil
}

// selected returns a request's context with its selector.
func selected(r *http.Request) (context.Context, error) {
	selector, err := store.NewSelector(r.Header.Get("Flagd-Selector"))
	return context.WithValue(r.Context(), store.SelectorContextKey{}, selector), err
}

// refuse answers a body that cannot be read.
func refuse(w http.ResponseWriter, err error, payload any) {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		write(w, http.StatusRequestEntityTooLarge, ofrep.InternalError{ErrorDetails: "request body too large"})
		return
	}
	write(w, http.StatusBadRequest, payload)
}

func write(w http.ResponseWriter, status int, payload any) {
	body, err := json.Marshal(payload)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that went away
}

// measured records what flagd records of a request: that it runs, its time and the size of its answer.
func (e evaluation) measured(route string, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Before the answer its status is not known; flagd says 200 of each.
		attributes := e.recorder.HTTPAttributes(serviceName, route, r.Method, strconv.Itoa(http.StatusOK), "http")
		e.recorder.InFlightRequestStart(r.Context(), attributes)
		start, counted := time.Now(), &countingWriter{ResponseWriter: w}
		next(counted, r)
		e.recorder.HTTPRequestDuration(r.Context(), time.Since(start), attributes)
		e.recorder.HTTPResponseSize(r.Context(), counted.bytes, attributes)
		e.recorder.InFlightRequestEnd(r.Context(), attributes)
	})
}

// countingWriter counts the bytes of an answer's body.
type countingWriter struct {
	http.ResponseWriter
	bytes int64
}

func (w *countingWriter) Write(body []byte) (int, error) {
	w.bytes += int64(len(body))
	return w.ResponseWriter.Write(body)
}
