// net/http with pgx's pool, as its documentation shows. The tag telemetry replaces plain.go by telemetry.go and otlp.go.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

type client struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Money string `json:"money"`
}

type database interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

type server struct {
	database
}

func (s *server) get(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, "/get/"), 10, 64)
	if err != nil {
		http.Error(w, "id has to be a number", http.StatusBadRequest)
		return
	}
	var c client
	row := s.QueryRow(r.Context(), "SELECT id, name, money::text FROM clients WHERE id = $1", id)
	if err := row.Scan(&c.ID, &c.Name, &c.Money); errors.Is(err, pgx.ErrNoRows) {
		http.NotFound(w, r)
		return
	} else if err != nil {
		fail(w, err)
		return
	}
	respond(w, http.StatusOK, c)
}

func (s *server) add(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	var id int64
	err := s.QueryRow(r.Context(), "INSERT INTO clients (name, money) VALUES ($1, $2::text::numeric) RETURNING id",
		query.Get("name"), query.Get("money")).Scan(&id)
	if err != nil {
		fail(w, err)
		return
	}
	respond(w, http.StatusCreated, map[string]int64{"id": id})
}

func (s *server) getall(w http.ResponseWriter, r *http.Request) {
	rows, err := s.Query(r.Context(), "SELECT id, name, money::text FROM clients ORDER BY id")
	if err != nil {
		fail(w, err)
		return
	}
	defer rows.Close()
	clients := []client{}
	for rows.Next() {
		var c client
		if err := rows.Scan(&c.ID, &c.Name, &c.Money); err != nil {
			fail(w, err)
			return
		}
		clients = append(clients, c)
	}
	if err := rows.Err(); err != nil {
		fail(w, err)
		return
	}
	respond(w, http.StatusOK, clients)
}

func respond(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		log.Print(err)
	}
}

func fail(w http.ResponseWriter, err error) {
	log.Print(err)
	http.Error(w, "internal error", http.StatusInternalServerError)
}

func main() {
	config, err := pgxpool.ParseConfig("") // reads PGHOST and the other variables of libpq
	if err != nil {
		log.Fatal(err)
	}
	config.MaxConns = 10 // the same as the other peers
	pool, err := pgxpool.ConnectConfig(context.Background(), config)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	startTelemetry(mux)
	s := &server{traced(pool)}
	mux.Handle("/get/", observed("/get/{id}", s.get))
	mux.Handle("/add", observed("/add", s.add))
	mux.Handle("/getall", observed("/getall", s.getall))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), mux))
}
