/* A binary module: prints the size of its argument file, whose name core gives as argv[1]. */
#include <stdio.h>
int main(int argc, char **argv)
{
    FILE *f = argc > 1 ? fopen(argv[1], "r") : 0;
    int c, n = 0;
    while (f && (c = getc(f)) != EOF) n++;
    printf("{\"changed\": true, \"kind\": \"binary\", \"argc\": %d, \"some\": %s}\n", argc, n > 10 ? "true" : "false");
    return 0;
}
