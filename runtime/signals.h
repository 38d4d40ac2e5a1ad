/* signals.h -- SIGINT and SIGTERM ask for a stop after the step; the third one ends the process at
 * once (a launcher may pass one signal on twice).  SIGUSR1 and SIGUSR2 stand for the two where a
 * launcher passes only those on: mpirun ends the ranks a second after a SIGTERM of its own.  They
 * may come any number of times.  SIGXFSZ and SIGPIPE are ignored, so that a full disk or a closed
 * pipe is an error of the write. */
#ifndef ZM_RUNTIME_SIGNALS_H
#define ZM_RUNTIME_SIGNALS_H

void signals_install(void);
void signals_restore(void);
int signal_pending(void); /* 0, or the first of SIGINT and SIGTERM that came */

#endif
