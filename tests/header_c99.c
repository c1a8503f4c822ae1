/* SPDX-License-Identifier: Apache-2.0 */
/* The header alone, as C99. */
#include "negcos/negcos.h"

int main(void) {
    return 0;
}
