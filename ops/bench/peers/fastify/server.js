// Fastify with pg's pool and response schemas, as Fastify's documentation recommends.

import Fastify from 'fastify'
import pg from 'pg'

const pool = new pg.Pool({ max: 10 })
const app = Fastify()

const client = {
  type: 'object',
  properties: { id: { type: 'integer' }, name: { type: 'string' }, money: { type: 'string' } }
}

app.get(
  '/get/:id',
  {
    schema: {
      params: { type: 'object', properties: { id: { type: 'integer' } } },
      response: { 200: client }
    }
  },
  async (request, reply) => {
    const { rows } = await pool.query({
      name: 'get',
      text: 'SELECT id, name, money FROM clients WHERE id = $1',
      values: [request.params.id]
    })
    return rows[0] ?? reply.code(404).send()
  }
)

app.post(
  '/add',
  {
    schema: {
      querystring: {
        type: 'object',
        required: ['name', 'money'],
        properties: { name: { type: 'string' }, money: { type: 'string' } }
      },
      response: { 201: { type: 'object', properties: { id: { type: 'integer' } } } }
    }
  },
  async (request, reply) => {
    const { rows } = await pool.query({
      name: 'add',
      text: 'INSERT INTO clients (name, money) VALUES ($1, $2) RETURNING id',
      values: [request.query.name, request.query.money]
    })
    reply.code(201)
    return rows[0]
  }
)

app.get('/getall', { schema: { response: { 200: { type: 'array', items: client } } } }, async () => {
  const { rows } = await pool.query({ name: 'getall', text: 'SELECT id, name, money FROM clients ORDER BY id' })
  return rows
})

await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
