namespace Pageferry.Criu;

/// <summary>
/// How long the headers of the page-server protocol are. It has no version number: both sides have to be of one form, which the images tell.
/// </summary>
public enum PageServerForm
{
    /// <summary>24 bytes, with 32 bits for a number of pages: CRIU up to 4.1.</summary>
    Header24,

    /// <summary>32 bytes, with 64 bits for a number of pages: CRIU from 4.2 on.</summary>
    Header32,
}
