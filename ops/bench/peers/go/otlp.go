//go:build telemetry

// OTLP over HTTP. Debian has no exporter of it, so this encodes what telemetry.go records, by the fields' numbers in
// opentelemetry/proto/trace/v1/trace.proto.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/protobuf/encoding/protowire"
)

type exporter struct{ url string }

func (e exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	var ofScope []byte
	for _, span := range spans {
		ofScope = appendBytes(ofScope, 2, encoded(span))
	}
	resource := appendAttributes(nil, 1, spans[0].Resource().Attributes())
	ofResource := appendBytes(appendBytes(nil, 1, resource), 2, ofScope)
	body := bytes.NewReader(appendBytes(nil, 1, ofResource))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, body)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-protobuf")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the collector responded %s", response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body) // so that the next export has the same connection
	return err
}

func (exporter) Shutdown(context.Context) error { return nil }

func encoded(span sdk.ReadOnlySpan) []byte {
	id, trace, parent := span.SpanContext().SpanID(), span.SpanContext().TraceID(), span.Parent().SpanID()
	b := appendBytes(nil, 1, trace[:])
	b = appendBytes(b, 2, id[:])
	if parent.IsValid() {
		b = appendBytes(b, 4, parent[:])
	}
	b = appendBytes(b, 5, []byte(span.Name()))
	b = appendNumber(b, 6, uint64(span.SpanKind()))
	b = protowire.AppendFixed64(protowire.AppendTag(b, 7, protowire.Fixed64Type), uint64(span.StartTime().UnixNano()))
	b = protowire.AppendFixed64(protowire.AppendTag(b, 8, protowire.Fixed64Type), uint64(span.EndTime().UnixNano()))
	b = appendAttributes(b, 9, span.Attributes())
	if status := span.Status(); status.Code == codes.Error {
		b = appendBytes(b, 15, appendNumber(appendBytes(nil, 2, []byte(status.Description)), 3, 2))
	}
	return b
}

func appendAttributes(b []byte, field protowire.Number, attributes []attribute.KeyValue) []byte {
	for _, each := range attributes {
		var value []byte
		if each.Value.Type() == attribute.INT64 {
			value = appendNumber(nil, 3, uint64(each.Value.AsInt64()))
		} else {
			value = appendBytes(nil, 1, []byte(each.Value.Emit()))
		}
		b = appendBytes(b, field, appendBytes(appendBytes(nil, 1, []byte(each.Key)), 2, value))
	}
	return b
}

func appendBytes(b []byte, field protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), value)
}

func appendNumber(b []byte, field protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), value)
}
