/**
 * Trace context (W3C Trace Context, level 1) on its way with a task: from the span that put it to the one that handles it.
 *
 * Only where somebody traces: Effect makes spans of its own whether or not they go anywhere, and these would cost every
 * task its bytes for nothing. What arrives as no trace context is passed over, and travels on with the task.
 */
import type * as Fiber from "effect/Fiber"
import * as Headers from "effect/http/Headers"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"

const traceIdPattern = /^[0-9a-f]{32}$/
const spanIdPattern = /^[0-9a-f]{16}$/

/**
 * The `traceparent` of the fiber's span; undefined: it has none that anybody records. Ids that are none of the standard's
 * are not sent: Effect's span of a tracer that is switched off has such, and so may one that came from outside.
 */
export const traceOf = (fiber: Fiber.Fiber<unknown, unknown>): string | undefined => {
  const { span } = fiber.cache
  if (span === undefined || span instanceof Tracer.NativeSpan) return undefined
  const traceId = span.traceId.padStart(32, "0")
  if (!traceIdPattern.test(traceId) || !spanIdPattern.test(span.spanId)) return undefined
  return `00-${traceId}-${span.spanId}-${span.sampled ? "01" : "00"}`
}

/** The span that a `traceparent` names. */
export const spanOf = (trace: string): Tracer.ExternalSpan | undefined =>
  Option.getOrUndefined(HttpTraceContext.w3c(Headers.fromRecordUnsafe({ traceparent: trace })))

/** Whether spans go nowhere: no tracer is installed. */
export const isUntraced = ({ cache }: Fiber.Fiber<unknown, unknown>): boolean =>
  cache.tracer === undefined || cache.tracer === Tracer.nativeTracer || !cache.tracerEnabled
