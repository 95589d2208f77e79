/** The program of a store's thread. */
import { serve } from "./SqliteThread.ts"

serve()
