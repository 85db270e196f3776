/* Many tasks at once, to be killed. Arguments: how many, and what they do when all are there: "sleep", "spin", or "bomb", which starts
 * new ones as long as it may. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **arguments) {
    int gate[2];
    char byte;
    if (count != 3 || pipe(gate) != 0) return 64;
    int first = 1, bomb = !strcmp(arguments[2], "bomb");
    for (int at = bomb ? 2 : atoi(arguments[1]); at > 1 && first; at--) first = fork() != 0;
    close(gate[1]);
    if (read(gate[0], &byte, 1) != 0) return 1;
    if (bomb)
        for (;;) (void)!fork();
    if (!strcmp(arguments[2], "spin"))
        for (volatile unsigned long turns = 0;; turns++) {}
    for (;;) sleep(1000);
}
