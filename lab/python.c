/* python.exe: what CPython's own launcher does, for a python3XX.dll that came without one. PYTHON is that DLL's name. */
#include <windows.h>

int wmain(int argc, wchar_t **argv)
{
    HMODULE python = LoadLibraryW(PYTHON);
    int (*py_main)(int, wchar_t **) = python ? (void *)GetProcAddress(python, "Py_Main") : NULL;
    return py_main ? py_main(argc, argv) : 127;
}
