package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"

	"github.com/open-feature/flagd/core/pkg/evaluator"
	"github.com/open-feature/flagd/core/pkg/logger"
	"github.com/open-feature/flagd/core/pkg/store"
	"github.com/open-feature/flagd/core/pkg/sync"
	"github.com/open-feature/flagd/core/pkg/telemetry"
	"go.uber.org/zap"
)

type question struct {
	Documents []document `json:"documents"`
	Ask       []request  `json:"ask"`
}

type document struct {
	Source   string          `json:"source"`
	Document json.RawMessage `json:"document"`
}

// A request of OFREP.
type request struct {
	Key      *string         `json:"key"`
	Selector string          `json:"selector"`
	Context  json.RawMessage `json:"context"`
}

type answer struct {
	Status int             `json:"status"`
	Body   json.RawMessage `json:"body"`
}

// lines answers questions until there are no more.
func lines(in io.Reader, out io.Writer) error {
	questions, answers := json.NewDecoder(in), json.NewEncoder(out)
	var handler http.Handler
	for {
		var asked question
		if err := questions.Decode(&asked); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var said any
		if asked.Documents != nil {
			var refused map[string]string
			var err error
			if handler, refused, err = reading(asked.Documents); err != nil {
				return err
			}
			said = map[string]any{"refused": refused}
		} else if handler == nil {
			return errors.New("nothing to evaluate: documents come first")
		} else {
			given := make([]answer, len(asked.Ask))
			for place, one := range asked.Ask {
				given[place] = ask(handler, one)
			}
			said = map[string]any{"answers": given}
		}
		if err := answers.Encode(said); err != nil {
			return err
		}
	}
}

// reading returns what evaluates these documents, and why it refused some of them.
func reading(documents []document) (http.Handler, map[string]string, error) {
	log := logger.NewLogger(zap.NewNop(), false)
	sources := make([]string, len(documents))
	for place, one := range documents {
		sources[place] = one.Source
	}
	flags, err := store.NewStore(log, sources)
	if err != nil {
		return nil, nil, err
	}
	engine, refused := evaluator.NewJSON(log, flags), map[string]string{}
	for _, one := range documents {
		text := string(one.Document)
		if asText := ""; json.Unmarshal(one.Document, &asText) == nil {
			text = asText
		}
		if err := engine.SetState(sync.DataSync{FlagData: text, Source: one.Source}); err != nil {
			refused[one.Source] = err.Error()
		}
	}
	return newHandler(engine, telemetry.NoopMetricsRecorder{}), refused, nil
}

// ask returns what is answered over HTTP, without a connection.
func ask(handler http.Handler, asked request) answer {
	target := "/ofrep/v1/evaluate/flags"
	if asked.Key != nil {
		target += "/" + url.PathEscape(*asked.Key)
	}
	var body bytes.Buffer
	if asked.Context != nil {
		body.WriteString(`{"context":`)
		body.Write(asked.Context)
		body.WriteByte('}')
	}
	posted := httptest.NewRequest(http.MethodPost, target, &body)
	posted.Header.Set("Flagd-Selector", asked.Selector)
	recorded := httptest.NewRecorder()
	handler.ServeHTTP(recorded, posted)
	given := answer{Status: recorded.Code, Body: recorded.Body.Bytes()}
	if !json.Valid(given.Body) { // the router's own 404 and 301
		given.Body, _ = json.Marshal(recorded.Body.String())
	}
	return given
}
