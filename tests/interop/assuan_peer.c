/* GnuPG's own sockets on Windows (libassuan), as a server and as a client, to try ours with.

   assuan_peer serve PATH REPLY [cygwin]   makes the file at PATH, says "ready" and answers each request with REPLY (hex);
                                           "cygwin": the file has Cygwin's form, as that of gpg-agent's socket for SSH
   assuan_peer ask PATH REQUEST            sends REQUEST (hex) and prints the first bytes of what comes back (hex)

   Debian: gcc-mingw-w64-x86-64 libassuan-mingw-w64-dev libgpg-error-mingw-w64-dev
   x86_64-w64-mingw32-gcc -O2 -s -static -o assuan_peer.exe assuan_peer.c -lassuan -lgpg-error -lws2_32 */

#include <winsock2.h>

#include <assuan.h>
#include <stdio.h>
#include <string.h>

static int
failed (const char *what)
{
  fprintf (stderr, "%s failed: %d\n", what, WSAGetLastError ());
  return 1;
}

static int
from_hex (const char *text, char *bytes, int size)
{
  int count = 0;
  unsigned value;

  while (count < size && sscanf (text + 2 * count, "%2x", &value) == 1)
    bytes[count++] = (char) value;
  return count;
}

/* libassuan 2.5.5 reads 49 bytes of a file in Cygwin's form, which has 53: the end of its secret, it never sees. */
static int
mend_nonce (const char *path, assuan_sock_nonce_t *nonce)
{
  FILE *file = fopen (path, "rb");
  unsigned *words = (unsigned *) nonce->nonce;

  return !file
         || fscanf (file, "!<socket >%*u s %8x-%8x-%8x-%8x", words, words + 1, words + 2, words + 3) != 4
         || fclose (file);
}

static int
serve (assuan_fd_t listener, struct sockaddr_un *address, const char *reply, int size, const char *mend)
{
  assuan_sock_nonce_t nonce;
  char request[4096];

  if (assuan_sock_bind (listener, (struct sockaddr *) address, sizeof *address))
    return failed ("bind");
  if (assuan_sock_get_nonce ((struct sockaddr *) address, sizeof *address, &nonce))
    return failed ("get_nonce");
  if (mend && mend_nonce (mend, &nonce))
    return failed ("mend_nonce");
  if (listen ((SOCKET) listener, 5))
    return failed ("listen");
  puts ("ready");
  fflush (stdout);
  for (;;)
    {
      SOCKET client = accept ((SOCKET) listener, NULL, NULL);

      if (client == INVALID_SOCKET)
        return failed ("accept");
      if (assuan_sock_check_nonce ((assuan_fd_t) client, &nonce))
        puts ("refused");
      else
        while (recv (client, request, sizeof request, 0) > 0)
          send (client, reply, size, 0);
      fflush (stdout);
      assuan_sock_close ((assuan_fd_t) client);
    }
}

static int
ask (assuan_fd_t connection, struct sockaddr_un *address, const char *request, int size)
{
  unsigned char reply[4096];
  int count, i;

  if (assuan_sock_connect (connection, (struct sockaddr *) address, sizeof *address))
    return failed ("connect");
  send ((SOCKET) connection, request, size, 0);
  count = recv ((SOCKET) connection, (char *) reply, sizeof reply, 0);
  for (i = 0; i < count; i++)
    printf ("%02x", reply[i]);
  putchar ('\n');
  return count <= 0;
}

int
main (int count, char **words)
{
  WSADATA data;
  struct sockaddr_un address;
  assuan_fd_t fd;
  char bytes[4096];
  int size, redirected;

  if (count < 4)
    return 2;
  WSAStartup (MAKEWORD (2, 2), &data);
  assuan_sock_init ();
  fd = assuan_sock_new (AF_UNIX, SOCK_STREAM, 0);
  if (fd == ASSUAN_INVALID_FD)
    return failed ("socket");
  if (assuan_sock_set_sockaddr_un (words[2], (struct sockaddr *) &address, &redirected))
    return failed ("sockaddr");
  size = from_hex (words[3], bytes, sizeof bytes);
  if (count > 4)
    {
      /* The list of such sockets seems full to it: a free place is -1, and they begin as 0. So one of those goes. */
      assuan_sock_set_flag (NULL, words[4], 0);
      if (assuan_sock_set_flag (fd, words[4], 1))
        return failed (words[4]);
    }
  if (!strcmp (words[1], "serve"))
    return serve (fd, &address, bytes, size, count > 4 ? words[2] : NULL);
  return ask (fd, &address, bytes, size);
}
