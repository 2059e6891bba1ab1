//go:build telemetry

// A JSON line and a duration in a histogram for each request, and OpenTelemetry's spans for 5 % of the traces. Debian has
// neither otelhttp nor a tracer for pgx 4, so they are written here; attributes are only made for spans that are recorded.
package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

var (
	lines     = zerolog.New(os.Stdout).With().Timestamp().Logger()
	durations = promauto.NewHistogramVec(
		prometheus.HistogramOpts{Name: "http_request_duration_seconds", Help: "Durations of requests."},
		[]string{"route", "status"})
	propagator = propagation.TraceContext{}
	tracer     trace.Tracer
)

// startTelemetry adds the page of metrics, and exports spans until the process is asked to stop.
func startTelemetry(mux *http.ServeMux) {
	provider := sdk.NewTracerProvider(
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(0.05))),
		sdk.WithBatcher(exporter{os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") + "/v1/traces"}),
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", "go-pgx"))))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Print(err) }))
	tracer = provider.Tracer("clients")
	mux.Handle("/metrics", promhttp.Handler())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		if err := provider.Shutdown(context.Background()); err != nil {
			log.Print(err)
		}
		os.Exit(0)
	}()
}

// response remembers what a handler responds.
type response struct {
	http.ResponseWriter
	status, bytes int
}

func (w *response) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(body []byte) (int, error) {
	written, err := w.ResponseWriter.Write(body)
	w.bytes += written
	return written, err
}

func observed(route string, handler http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		ctx := propagator.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := tracer.Start(ctx, r.Method+" "+route, trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		sent := &response{w, http.StatusOK, 0}
		handler(sent, r.WithContext(ctx))
		duration := time.Since(start)
		durations.WithLabelValues(route, strconv.Itoa(sent.status)).Observe(duration.Seconds())
		lines.Info().
			Str("method", r.Method).
			Str("route", route).
			Str("path", r.URL.Path).
			Int("status", sent.status).
			Int("bytes", sent.bytes).
			Dur("duration_ms", duration).
			Str("client", r.RemoteAddr).
			Str("user_agent", r.UserAgent()).
			Str("trace_id", span.SpanContext().TraceID().String()).
			Msg("request")
		if span.IsRecording() {
			span.SetAttributes(
				attribute.String("http.method", r.Method),
				attribute.String("http.route", route),
				attribute.String("http.target", r.RequestURI),
				attribute.String("http.host", r.Host),
				attribute.String("http.user_agent", r.UserAgent()),
				attribute.Int("http.status_code", sent.status))
			if sent.status >= http.StatusInternalServerError {
				span.SetStatus(codes.Error, "")
			}
		}
	})
}

// traced adds a span to each query.
func traced(pool database) database { return tracedDatabase{pool} }

type tracedDatabase struct{ pool database }

func (d tracedDatabase) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	ctx, span := startQuery(ctx, sql)
	rows, err := d.pool.Query(ctx, sql, args...)
	if err != nil {
		endQuery(span, err)
		return nil, err
	}
	return tracedRows{rows, span}, nil
}

func (d tracedDatabase) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	ctx, span := startQuery(ctx, sql)
	return tracedRow{d.pool.QueryRow(ctx, sql, args...), span}
}

type tracedRows struct {
	pgx.Rows
	span trace.Span
}

func (r tracedRows) Close() {
	r.Rows.Close()
	endQuery(r.span, r.Err())
}

type tracedRow struct {
	pgx.Row
	span trace.Span
}

func (r tracedRow) Scan(dest ...any) error {
	err := r.Row.Scan(dest...)
	endQuery(r.span, err)
	return err
}

func startQuery(ctx context.Context, sql string) (context.Context, trace.Span) {
	operation, _, _ := strings.Cut(sql, " ")
	ctx, span := tracer.Start(ctx, operation+" clients", trace.WithSpanKind(trace.SpanKindClient))
	if span.IsRecording() {
		span.SetAttributes(attribute.String("db.system", "postgresql"), attribute.String("db.statement", sql))
	}
	return ctx, span
}

func endQuery(span trace.Span, err error) {
	if err != nil && err != pgx.ErrNoRows {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}
