/* SPDX-License-Identifier: Apache-2.0
 *
 * Ends with 0 where the processor has what the avx2 kernels need; for tests/everywhere.sh, of emulated ones.
 */
int main(void) {
    __builtin_cpu_init();
    return !(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"));
}
