//! hyper with tokio-postgres, as their documentation shows; ten connections, shared in turn.

use std::borrow::Cow;
use std::convert::Infallible;
use std::env;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use hyper::header::CONTENT_TYPE;
use hyper::service::{make_service_fn, service_fn};
use hyper::{Body, Method, Request, Response, Server, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio_postgres::{NoTls, Row, Statement};

type Error = Box<dyn std::error::Error + Send + Sync>;

const CONNECTIONS: usize = 10; // the same as the other peers

#[derive(Serialize)]
struct Client<'a> {
    id: i64,
    name: &'a str,
    money: &'a str,
}

#[derive(Serialize)]
struct Added {
    id: i64,
}

/// A connection with its prepared statements.
struct Connection {
    client: tokio_postgres::Client,
    get: Statement,
    add: Statement,
    getall: Statement,
}

struct Pool {
    connections: Vec<Connection>,
    next: AtomicUsize,
}

impl Pool {
    async fn connect(dsn: &str) -> Result<Self, Error> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
            tokio::spawn(connection);
            connections.push(Connection {
                get: client.prepare("SELECT id, name, money::text FROM clients WHERE id = $1").await?,
                add: client
                    .prepare("INSERT INTO clients (name, money) VALUES ($1, $2::text::numeric) RETURNING id")
                    .await?,
                getall: client.prepare("SELECT id, name, money::text FROM clients ORDER BY id").await?,
                client,
            });
        }
        Ok(Pool { connections, next: AtomicUsize::new(0) })
    }

    fn connection(&self) -> &Connection {
        &self.connections[self.next.fetch_add(1, Ordering::Relaxed) % CONNECTIONS]
    }
}

async fn get(pool: &Pool, id: &str) -> Result<Response<Body>, Error> {
    let Ok(id) = id.parse::<i64>() else {
        return Ok(problem(StatusCode::BAD_REQUEST, "id has to be a number"));
    };
    let connection = pool.connection();
    match connection.client.query_opt(&connection.get, &[&id]).await? {
        Some(row) => respond(StatusCode::OK, &client_of(&row)),
        None => Ok(problem(StatusCode::NOT_FOUND, "there is no such client")),
    }
}

async fn add(pool: &Pool, query: &str) -> Result<Response<Body>, Error> {
    let (name, money) = (field(query, "name"), field(query, "money"));
    let connection = pool.connection();
    let row = connection.client.query_one(&connection.add, &[&name, &money]).await?;
    respond(StatusCode::CREATED, &Added { id: row.get(0) })
}

async fn getall(pool: &Pool) -> Result<Response<Body>, Error> {
    let connection = pool.connection();
    let rows = connection.client.query(&connection.getall, &[]).await?;
    let clients: Vec<Client> = rows.iter().map(client_of).collect();
    respond(StatusCode::OK, &clients)
}

fn client_of(row: &Row) -> Client<'_> {
    Client { id: row.get(0), name: row.get(1), money: row.get(2) }
}

/// The decoded value of a query field, or nothing where it is missing.
fn field<'a>(query: &'a str, name: &str) -> Cow<'a, str> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).unwrap_or("");
    if value.contains('+') {
        return Cow::Owned(percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned());
    }
    percent_decode_str(value).decode_utf8_lossy()
}

fn respond<T: Serialize>(status: StatusCode, body: &T) -> Result<Response<Body>, Error> {
    let bytes = serde_json::to_vec(body)?;
    Ok(Response::builder().status(status).header(CONTENT_TYPE, "application/json").body(Body::from(bytes))?)
}

fn problem(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

async fn serve(pool: Arc<Pool>, request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let uri = request.uri();
    let answered = match (request.method(), uri.path()) {
        (&Method::POST, "/add") => add(&pool, uri.query().unwrap_or("")).await,
        (&Method::GET, "/getall") => getall(&pool).await,
        (&Method::GET, path) if path.starts_with("/get/") => get(&pool, &path["/get/".len()..]).await,
        _ => Ok(problem(StatusCode::NOT_FOUND, "not found")),
    };
    Ok(answered.unwrap_or_else(|error| {
        eprintln!("{error}");
        problem(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
    }))
}

/// The connection string of libpq's variables.
fn dsn() -> String {
    [("host", "PGHOST"), ("port", "PGPORT"), ("user", "PGUSER"), ("password", "PGPASSWORD"), ("dbname", "PGDATABASE")]
        .into_iter()
        .filter_map(|(key, variable)| Some(format!("{key}='{}' ", env::var(variable).ok()?)))
        .collect()
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let pool = Arc::new(Pool::connect(&dsn()).await?);
    let address = SocketAddr::from(([127, 0, 0, 1], env::var("PORT")?.parse()?));
    let service = make_service_fn(move |_| {
        let pool = pool.clone();
        async move { Ok::<_, Infallible>(service_fn(move |request| serve(pool.clone(), request))) }
    });
    Server::bind(&address).tcp_nodelay(true).serve(service).await?;
    Ok(())
}
