//go:build !telemetry

package main

import "net/http"

func startTelemetry(*http.ServeMux) {}

func traced(pool database) database { return pool }

func observed(_ string, handler http.HandlerFunc) http.Handler { return handler }
