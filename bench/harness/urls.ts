/** What the tasks of all systems carry. */

const urlBytes = 60
const urlBase = "https://images.example.org/"

/** The URL of a task: exactly 60 bytes, and another one for every task of every pass. */
export const urlOf = (pass: number, index: number): string => {
  const tail = `/${String(index).padStart(9, "0")}.png`
  const url = `${urlBase}${String(pass).padStart(urlBytes - urlBase.length - tail.length, "0")}${tail}`
  if (url.length !== urlBytes) throw new Error(`a URL of ${url.length} bytes: ${url}`)
  return url
}

/** The index in a URL made by `urlOf`. Compare the whole URL as well. */
export const indexOf = (url: string): number => Number(url.slice(-13, -4))

export interface Task {
  readonly url: string
  /** Makes the payload as large as the variant says. */
  readonly body?: string
}

/** The tasks of one pass; `payloadBytes` of each as JSON. */
export const tasksOf = (pass: number, count: number, payloadBytes: number | undefined): ReadonlyArray<Task> => {
  if (payloadBytes === undefined) return Array.from({ length: count }, (_, i) => ({ url: urlOf(pass, i) }))
  const around = JSON.stringify({ url: urlOf(pass, 0), body: "" }).length
  const body = "x".repeat(payloadBytes - around)
  return Array.from({ length: count }, (_, i) => ({ url: urlOf(pass, i), body }))
}
