/** Effect's SQL client over the runtime's own SQLite, in memory: as much of it as Effect's `PersistedQueue` store asks for. */
import { DatabaseSync, type SQLInputValue } from "node:sqlite"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as Stream from "effect/Stream"
import * as SqlClient from "effect/sql/SqlClient"
import type { Connection } from "effect/sql/SqlConnection"
import { classifySqliteError, SqlError } from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"

export const layerSqlite: Layer.Layer<SqlClient.SqlClient> = Layer.effect(
  SqlClient.SqlClient,
  Effect.gen(function* () {
    const database = yield* Effect.acquireRelease(
      Effect.sync(() => new DatabaseSync(":memory:")),
      (opened) => Effect.sync(() => opened.close())
    )
    const all = (sql: string, params: ReadonlyArray<unknown>) =>
      Effect.try({
        try: () => database.prepare(sql).all(...(params as ReadonlyArray<SQLInputValue>)),
        catch: (cause) => new SqlError({ reason: classifySqliteError(cause, {}) })
      })
    const values = (sql: string, params: ReadonlyArray<unknown>) =>
      Effect.map(all(sql, params), (rows) => rows.map((row) => Object.values(row)))
    const connection: Connection = {
      execute: all,
      executeUnprepared: all,
      executeRaw: all,
      executeValues: values,
      executeValuesUnprepared: values,
      executeStream: (sql, params) => Stream.fromIterableEffect(all(sql, params))
    }
    return yield* SqlClient.make({
      acquirer: Effect.succeed(connection),
      compiler: Statement.makeCompilerSqlite(),
      driver: "node:sqlite",
      spanAttributes: []
    })
  })
).pipe(Layer.provide(Reactivity.layer))
